"""The web page and its files, which are in client/web."""

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

WEB = Path(__file__).parent.parent / "client" / "web"
WEB_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".jpg": "image/jpeg"}


def page(request: Request) -> Response:
    """GET / → a web page to enlarge images with; GET /web/{file} → one of its files."""
    file = WEB / request.path_params.get("file", "index.html")
    if file not in WEB.iterdir():  # only files of this folder, against path traversal
        raise HTTPException(404)
    return Response(file.read_bytes(), media_type=WEB_TYPES[file.suffix], headers={"Cache-Control": "no-cache"})
