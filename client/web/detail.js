/** Finds the place of an image at which there is most to see. */

const SIDE = 512; // an image is looked at with this size at most

/**
 * Return the middle, [x, y] from 0 to 1, of the part of an image with the strongest contours; null if the browser does
 * not let the page read the image, which came from another host without CORS headers. `part`: its share of the width.
 */
export function detailedSpot(image, part) {
  const scale = Math.min(1, SIDE / Math.max(image.naturalWidth, image.naturalHeight));
  const [width, height] = [image.naturalWidth, image.naturalHeight].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  try {
    context.drawImage(image, 0, 0, width, height);
    const { data } = context.getImageData(0, 0, width, height);
    const [x, y] = busiest(contours(data, width, height), width, height, Math.ceil(part * width), Math.ceil(part * height));
    return [x / width, y / height];
  } catch { // SecurityError; or too large for this browser
    return null;
  }
}

/** The strength of the contours, for each pixel of RGBA data. */
function contours(data, width, height) {
  const light = (at) => (data[4 * at] + 2 * data[4 * at + 1] + data[4 * at + 2]) * data[4 * at + 3];
  const found = new Float64Array(width * height);
  for (let at = 0, y = 0; y < height - 1; y++, at++) {
    for (let x = 0; x < width - 1; x++, at++) {
      found[at] = Math.abs(light(at + 1) - light(at)) + Math.abs(light(at + width) - light(at));
    }
  }
  return found;
}

/** The middle of the window of w x h pixels with the largest sum of values; the first one if there are several. */
export function busiest(values, width, height, w, h) {
  const sums = new Float64Array((width + 1) * (height + 1)); // of all values above and to the left
  const at = (x, y) => y * (width + 1) + x;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      sums[at(x + 1, y + 1)] = values[y * width + x] + sums[at(x, y + 1)] + sums[at(x + 1, y)] - sums[at(x, y)];
    }
  }
  let best = { sum: -1, x: 0, y: 0 };
  for (let y = 0; y + h <= height; y++) {
    for (let x = 0; x + w <= width; x++) {
      const sum = sums[at(x + w, y + h)] - sums[at(x, y + h)] - sums[at(x + w, y)] + sums[at(x, y)];
      if (sum > best.sum) best = { sum, x, y };
    }
  }
  return best.sum > 0 ? [best.x + w / 2, best.y + h / 2] : [width / 2, height / 2];
}
