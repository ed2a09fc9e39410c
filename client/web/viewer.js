/** Shows before and after over each other, with an edge to move, zoom and pan; by pointer, keyboard or range input. */

const MOST_ZOOM = 16;
const STEP = 1.5;

export function compare(card, width) {
  const find = (name) => card.querySelector(name);
  const [viewer, layers, edge, range, shown] = [".viewer", ".layers", ".edge", ".wipe input", ".zoom .fit"].map(find);
  const [less, more] = [".zoom .out", ".zoom .in"].map(find);
  const view = { zoom: 1, x: 0, y: 0, at: 0.5 };

  function draw() {
    const { clientWidth, clientHeight } = viewer;
    view.x = Math.min(0, Math.max(clientWidth * (1 - view.zoom), view.x));
    view.y = Math.min(0, Math.max(clientHeight * (1 - view.zoom), view.y));
    layers.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.zoom})`;
    // Zoom and pan do not move the edge on the screen.
    const cut = (view.at * clientWidth - view.x) / view.zoom / clientWidth;
    viewer.style.setProperty("--at", `${view.at * 100}%`);
    viewer.style.setProperty("--cut", `${Math.min(1, Math.max(0, cut)) * 100}%`);
    viewer.classList.toggle("zoomed", view.zoom > 1);
    const percent = Math.round((view.zoom * clientWidth * devicePixelRatio * 100) / width);
    shown.textContent = `${percent} %`;
    shown.ariaLabel = `${percent} % of its size; ${view.zoom > 1 ? "fit into the page" : "show every pixel"}`;
    range.ariaValueText = `${Math.round(view.at * 100)} % before`;
    [less.disabled, more.disabled] = [view.zoom <= 1, view.zoom >= MOST_ZOOM];
  }

  function zoom(factor, x = viewer.clientWidth / 2, y = viewer.clientHeight / 2) {
    const next = Math.min(MOST_ZOOM, Math.max(1, view.zoom * factor));
    view.x = x - ((x - view.x) * next) / view.zoom;
    view.y = y - ((y - view.y) * next) / view.zoom;
    view.zoom = next;
    draw();
  }

  function wipe(at) {
    view.at = Math.min(1, Math.max(0, at));
    range.value = view.at * 100;
    draw();
  }

  function pan(x, y) {
    view.x += x;
    view.y += y;
    draw();
  }

  const place = ({ clientX, clientY }) => {
    const box = viewer.getBoundingClientRect();
    return [clientX - box.left, clientY - box.top];
  };
  const pointers = new Map();

  viewer.onpointerdown = (event) => {
    if (event.button) return;
    const alone = !pointers.size;
    const onEdge = alone && (event.target === edge || view.zoom === 1);
    const idle = onEdge && event.target !== edge && event.pointerType === "touch"; // the page may scroll
    for (const held of pointers.values()) held.onEdge = held.idle = false; // two fingers zoom; when one is lifted, the other one pans
    pointers.set(event.pointerId, { event, onEdge, idle });
    if (idle) return;
    event.preventDefault();
    viewer.setPointerCapture(event.pointerId);
    if (onEdge && view.zoom === 1) wipe(place(event)[0] / viewer.clientWidth);
  };
  viewer.onpointermove = (event) => {
    const held = pointers.get(event.pointerId);
    if (!held) return;
    if (pointers.size === 2) pinch(event);
    else if (held.idle) return;
    else if (held.onEdge) wipe(place(event)[0] / viewer.clientWidth);
    else pan(event.clientX - held.event.clientX, event.clientY - held.event.clientY);
    held.event = event;
  };
  viewer.onpointerup = viewer.onpointercancel = (event) => pointers.delete(event.pointerId);

  /** Zoom with two fingers: the point between them stays in place. */
  function pinch(event) {
    const [one, two] = [...pointers.values()].map((held) => held.event);
    const other = one.pointerId === event.pointerId ? two : one;
    const moved = one.pointerId === event.pointerId ? one : two;
    const distance = (a, b) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    pan((event.clientX - moved.clientX) / 2, (event.clientY - moved.clientY) / 2);
    const [x, y] = place({ clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 });
    zoom(distance(event, other) / Math.max(1, distance(moved, other)), x, y);
  }

  viewer.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // without these keys the page scrolls
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 200), ...place(event));
  }, { passive: false });
  viewer.ondblclick = (event) => zoom(view.zoom > 1 ? 1 / MOST_ZOOM : 4, ...place(event));
  viewer.onkeydown = (event) => {
    const keys = {
      "+": () => zoom(STEP), "=": () => zoom(STEP), "-": () => zoom(1 / STEP), 0: () => zoom(1 / MOST_ZOOM),
      ArrowLeft: () => pan(40, 0), ArrowRight: () => pan(-40, 0), ArrowUp: () => pan(0, 40), ArrowDown: () => pan(0, -40),
    };
    if (!keys[event.key] || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key.startsWith("Arrow") && view.zoom === 1) return; // then the page scrolls
    event.preventDefault();
    keys[event.key]();
  };
  more.onclick = () => zoom(STEP);
  less.onclick = () => zoom(1 / STEP);
  shown.onclick = () => zoom(view.zoom > 1 ? 1 / MOST_ZOOM : width / viewer.clientWidth / devicePixelRatio);
  range.oninput = () => wipe(range.value / 100);

  viewer.tabIndex = 0;
  viewer.setAttribute("role", "group");
  viewer.setAttribute("aria-label", "Before and after; plus and minus zoom, arrows move");
  new ResizeObserver(draw).observe(viewer);
  draw();
}
