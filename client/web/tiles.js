/** Draws the finished tiles of a running job in place. */

const LOOK_MS = 700; // between two requests for finished tiles

export class Tiles {
  #canvas;
  #fetch;
  #onSize;
  #seen = 0;
  #looking = false;
  #lookedAt = 0;
  #attempt = 0;

  /** fetch(seen) → the tiles without the first `seen`; onSize(width, height) is called when the preview's size is known. */
  constructor(canvas, fetch, onSize) {
    [this.#canvas, this.#fetch, this.#onSize] = [canvas, fetch, onSize];
  }

  /** A new attempt of the job begins with its first tile again. */
  begin(attempt) {
    if (attempt === this.#attempt) return;
    this.#attempt = attempt;
    this.#seen = 0;
    this.#canvas.width = this.#canvas.width; // clears it
  }

  /** Fetch and draw the newly finished tiles, from time to time. */
  async look() {
    if (this.#looking) return;
    this.#looking = true;
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, this.#lookedAt + LOOK_MS - Date.now())));
    this.#lookedAt = Date.now();
    const attempt = this.#attempt;
    const tiles = await this.#fetch(this.#seen).catch(() => []);
    this.#looking = false;
    if (attempt !== this.#attempt) return;
    this.#seen += tiles.length;
    tiles.forEach((tile) => this.#draw(tile));
  }

  #draw(tile) {
    const canvas = this.#canvas;
    if (canvas.width !== tile.of_width || canvas.height !== tile.of_height) {
      Object.assign(canvas, { width: tile.of_width, height: tile.of_height });
      this.#onSize(tile.of_width, tile.of_height);
    }
    const image = new Image();
    image.onload = () => {
      canvas.getContext("2d").drawImage(image, tile.x, tile.y);
      canvas.dataset.tiles = Number(canvas.dataset.tiles ?? 0) + 1;
    };
    image.src = tile.image;
  }
}
