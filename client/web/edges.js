/** The movable edges between images that lie over each other, with a slider for each edge and a label for each image. */

export class Edges {
  #viewer;
  #sliders;
  #onMove;
  #images = [];
  #at = []; // place of each edge, 0 to 1 of the viewer's width
  #handles = [];
  #ranges = [];
  #tags = [];

  /** viewer: element for handles and labels; sliders: element for the sliders; onMove() is called when an edge was moved. */
  constructor(viewer, sliders, onMove) {
    [this.#viewer, this.#sliders, this.#onMove] = [viewer, sliders, onMove];
  }

  /** Make the edges between [{ image, label }], from left to right; all images get the same width. */
  show(images) {
    [...this.#handles, ...this.#tags].forEach((element) => element.remove());
    this.#images = images;
    this.#at = images.slice(1).map((_, index) => (index + 1) / images.length);
    this.#tags = images.map(({ label }) => make("span", { className: "tag", textContent: label }));
    this.#handles = this.#at.map(() => make("div", { className: "edge", ariaHidden: "true" }));
    this.#viewer.append(...this.#tags, ...this.#handles);
    this.#ranges = this.#at.map((_, index) => {
      const range = make("input", { type: "range", min: 0, max: 100, step: 0.5 });
      range.ariaLabel = `Edge between ${images[index].label} and ${images[index + 1].label}`;
      range.oninput = () => this.move(index, range.value / 100);
      return range;
    });
    this.#sliders.replaceChildren(...this.#ranges);
  }

  /** The index of the edge that an element is the handle of; -1 if it is none. */
  indexOf(element) {
    return this.#handles.indexOf(element);
  }

  nearest(at) {
    const distances = this.#at.map((one) => Math.abs(one - at));
    return distances.indexOf(Math.min(...distances));
  }

  /** Move an edge; it pushes those that are in its way. */
  move(index, at) {
    const to = Math.min(1, Math.max(0, at));
    this.#at = this.#at.map((one, other) => (other < index ? Math.min(one, to) : other > index ? Math.max(one, to) : to));
    this.#onMove();
  }

  /** Zoom and pan do not move the edges on the screen: place them over images at this view of a viewer of this width. */
  draw(width, { zoom, x }) {
    const inImage = (at) => Math.min(100, Math.max(0, ((at * width - x) / zoom / width) * 100));
    const bounds = [0, ...this.#at, 1];
    this.#images.forEach(({ image }, index) => {
      const [left, right] = [bounds[index], bounds[index + 1]];
      image.style.clipPath = `inset(0 ${100 - inImage(right)}% 0 ${inImage(left)}%)`;
      const tag = this.#tags[index];
      tag.style.maxWidth = `calc(${(right - left) * 100}% - .75rem)`;
      tag.hidden = (right - left) * width < 32;
      const last = index && index === this.#images.length - 1;
      Object.assign(tag.style, last ? { right: ".375rem" } : { left: `calc(${left * 100}% + .375rem)` });
    });
    this.#at.forEach((at, index) => {
      this.#handles[index].style.left = `${at * 100}%`;
      this.#ranges[index].value = at * 100;
      this.#ranges[index].ariaValueText = `${Math.round(at * 100)} % from the left`;
    });
  }
}

function make(name, properties) {
  return Object.assign(document.createElement(name), properties);
}
