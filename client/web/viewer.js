/** Shows images of one picture over each other, wiped by edges, with zoom and pan; by pointer, keyboard and buttons. */

import { Edges } from "./edges.js";

const LEAST_MOST = 16; // times the size that fits into the page
const STEP = 1.5;

export class Viewer {
  #view = { zoom: 1, x: 0, y: 0 };
  #width; // of the images, in pixels
  #pointers = new Map();

  /** card: element with .viewer, .layers and .controls; width: of the images, in pixels. */
  constructor(card, width) {
    this.#width = width;
    const find = (name) => card.querySelector(name);
    [this.element, this.layers] = [find(".viewer"), find(".layers")];
    [this.less, this.more, this.fit, this.percent] = [".zoom .out", ".zoom .in", ".zoom .fit", ".zoom .percent"].map(find);
    this.edges = new Edges(this.element, find(".wipes"), () => this.#draw());
    this.more.onclick = () => this.#zoom(STEP);
    this.less.onclick = () => this.#zoom(1 / STEP);
    this.fit.onclick = () => this.#zoom((this.#view.zoom > 1 ? 1 : this.#full) / this.#view.zoom);
    this.#listen();
    this.element.tabIndex = 0;
    this.element.setAttribute("role", "group");
    new ResizeObserver(() => this.#draw()).observe(this.element);
  }

  /** Show images, [{ image, label }], from left to right, and no others. Zoom and place stay. */
  show(images) {
    for (const layer of this.layers.children) layer.hidden = !images.some(({ image }) => image === layer);
    const named = images.map(({ label }) => label).join(", ");
    this.element.ariaLabel = `From left to right: ${named}; plus and minus zoom, arrows move`;
    this.edges.show(images);
    this.#draw();
  }

  /** Show one image pixel on each pixel of the screen, with this spot (0 to 1, 0 to 1) in the middle if it can be. */
  lookAt([x, y]) {
    const { width, height } = this.#box;
    const zoom = Math.max(1, this.#full);
    this.#view = { zoom, x: width * (0.5 - x * zoom), y: height * (0.5 - y * zoom) };
    this.#draw();
  }

  /** The part of the images' width that is visible at 100 %. */
  get visible() {
    return Math.min(1, 1 / this.#full);
  }

  get #box() {
    return this.element.getBoundingClientRect();
  }

  /** The zoom at which one pixel of the images has one pixel of the screen; 1 is the zoom that shows the whole. */
  get #full() {
    return this.#width / (this.#box.width * devicePixelRatio || 1);
  }

  #draw() {
    const { width, height } = this.#box;
    if (!width) return; // the page has no layout yet
    const view = this.#view;
    const whole = (offset) => Math.round(offset * devicePixelRatio) / devicePixelRatio; // else pixels would be mixed
    view.x = whole(Math.min(0, Math.max(width * (1 - view.zoom), view.x)));
    view.y = whole(Math.min(0, Math.max(height * (1 - view.zoom), view.y)));
    this.layers.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.zoom})`;
    this.edges.draw(width, view);
    this.element.classList.toggle("zoomed", view.zoom > 1);
    const [full, most] = [this.#full, this.#most];
    const percent = `${Math.round((view.zoom * 100) / full)} %`;
    this.percent.textContent = percent;
    this.fit.textContent = view.zoom > 1 ? "Show whole" : "Show 100 %";
    this.fit.disabled = view.zoom <= 1 && full <= 1;
    this.fit.ariaLabel = `${this.fit.textContent}; now ${percent}`;
    [this.less.disabled, this.more.disabled] = [view.zoom <= 1, view.zoom >= most];
  }

  get #most() {
    return Math.max(LEAST_MOST, 4 * this.#full);
  }

  #zoom(factor, x = this.#box.width / 2, y = this.#box.height / 2) {
    const view = this.#view;
    const next = Math.min(this.#most, Math.max(1, view.zoom * factor));
    view.x = x - ((x - view.x) * next) / view.zoom;
    view.y = y - ((y - view.y) * next) / view.zoom;
    view.zoom = next;
    this.#draw();
    this.element.classList.toggle("taken", next > 1);
  }

  #pan(x, y) {
    this.#view.x += x;
    this.#view.y += y;
    this.#draw();
    this.element.classList.toggle("taken", this.#view.zoom > 1); // from now on a finger moves it in all directions
  }

  #listen() {
    const { element } = this;
    element.onpointerdown = (event) => this.#down(event);
    element.onpointermove = (event) => this.#move(event);
    element.onpointerup = element.onpointercancel = (event) => this.#pointers.delete(event.pointerId);
    element.ondblclick = (event) => this.#zoom(this.#view.zoom > 1 ? 1 / this.#most : 4, ...this.#place(event));
    element.onkeydown = (event) => this.#key(event);
    element.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // without these keys the page scrolls
      event.preventDefault();
      this.#zoom(Math.exp(-event.deltaY / 200), ...this.#place(event));
    }, { passive: false });
  }

  #place({ clientX, clientY }) {
    const box = this.#box;
    return [clientX - box.left, clientY - box.top];
  }

  #wipe(edge, event) {
    this.edges.move(edge, this.#place(event)[0] / this.#box.width);
  }

  #down(event) {
    if (event.button) return;
    const whole = this.#view.zoom === 1;
    const touched = this.edges.indexOf(event.target);
    const edge = this.#pointers.size ? -1 : touched < 0 && whole ? this.edges.nearest(this.#place(event)[0] / this.#box.width) : touched;
    const idle = edge >= 0 && touched < 0 && event.pointerType === "touch"; // the page may scroll
    for (const held of this.#pointers.values()) Object.assign(held, { edge: -1, idle: false }); // two fingers zoom; when one is lifted, the other one pans
    this.#pointers.set(event.pointerId, { event, edge, idle });
    if (idle) return;
    event.preventDefault();
    this.element.setPointerCapture(event.pointerId);
    if (edge >= 0 && whole) this.#wipe(edge, event);
  }

  #move(event) {
    const held = this.#pointers.get(event.pointerId);
    if (!held) return;
    if (this.#pointers.size === 2) this.#pinch(event);
    else if (held.idle) return;
    else if (held.edge >= 0) this.#wipe(held.edge, event);
    else this.#pan(event.clientX - held.event.clientX, event.clientY - held.event.clientY);
    held.event = event;
  }

  /** Zoom with two fingers: the point between them stays in place. */
  #pinch(event) {
    const [one, two] = [...this.#pointers.values()].map((held) => held.event);
    const other = one.pointerId === event.pointerId ? two : one;
    const moved = one.pointerId === event.pointerId ? one : two;
    const distance = (a, b) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    this.#pan((event.clientX - moved.clientX) / 2, (event.clientY - moved.clientY) / 2);
    const middle = { clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 };
    this.#zoom(distance(event, other) / Math.max(1, distance(moved, other)), ...this.#place(middle));
  }

  #key(event) {
    const zoomBy = (factor) => () => this.#zoom(factor);
    const panBy = (x, y) => () => this.#pan(x, y);
    const keys = {
      "+": zoomBy(STEP), "=": zoomBy(STEP), "-": zoomBy(1 / STEP), 0: zoomBy(1 / this.#most), 1: zoomBy(this.#full / this.#view.zoom),
      ArrowLeft: panBy(40, 0), ArrowRight: panBy(-40, 0), ArrowUp: panBy(0, 40), ArrowDown: panBy(0, -40),
    };
    if (!keys[event.key] || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key.startsWith("Arrow") && this.#view.zoom === 1) return; // then the page scrolls
    event.preventDefault();
    keys[event.key]();
  }
}
