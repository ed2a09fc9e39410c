/** The size of a result before the server knows it; the server computes it in the same way (core/sizes.py). */

const UNITS = 10_000; // factors have four decimals

/**
 * Returns [width, height] of the result for an image of [width, height]. `wanted` has a factor; or a width, a height, or
 * both, into which the result fits.
 */
export function resultSize([width, height], wanted) {
  if (wanted.factor) {
    const units = Math.round(wanted.factor * UNITS);
    return [width, height].map((side) => Math.floor((2 * side * units + UNITS) / (2 * UNITS)));
  }
  const byWidth = wanted.width && (!wanted.height || wanted.width * height <= wanted.height * width);
  return byWidth
    ? [wanted.width, Math.max(1, Math.round((height * wanted.width) / width))]
    : [Math.max(1, Math.round((width * wanted.height) / height)), wanted.height];
}
