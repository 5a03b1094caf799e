"""The page: one shell of HTML for all of its addresses, and the files that it loads. There is no data in them."""

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

_HERE = Path(__file__).parent
_SHELL = _HERE / "templates" / "page.html"
_FILES = StaticFiles(directory=_HERE / "static")
PAGES = ("/", "/c/{id}", "/jobs", "/jobs/{id}", "/batches", "/batches/{id}", "/reports/{kind}", "/policy", "/budgets")

# Asked for again each time, and answered with 304 while they are the same: nobody runs yesterday's scripts.
_FRESH = {"Cache-Control": "no-cache"}


def routes() -> APIRouter:
    """The page's own addresses."""
    made = APIRouter(include_in_schema=False)
    for path in PAGES:
        made.add_api_route(path, _shell, methods=["GET", "HEAD"])
    made.add_api_route("/static/{name}", _static, methods=["GET", "HEAD"])
    made.add_api_route("/favicon.ico", _icon, methods=["GET", "HEAD"])
    return made


def _shell() -> Response:
    return FileResponse(_SHELL, headers=_FRESH)


async def _static(request: Request, name: str) -> Response:
    answer = await _FILES.get_response(name, request.scope)
    answer.headers.update(_FRESH)
    return answer


def _icon() -> Response:
    return FileResponse(_HERE / "static" / "icon.svg", headers=_FRESH)
