"""A Price List API and a spot market on loopback: they answer what a test has written down, and record the requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

PAGE = 2  # products of a page, so that paging is needed


def product(attributes: dict[str, str], *prices: tuple[str, float, float]) -> dict[str, Any]:
    """One entry of GetProducts; `prices` are (unit, first quantity of the tier, dollars)."""
    dimensions = {
        f"SKU.TERM.{i}": {"unit": unit, "beginRange": str(start), "pricePerUnit": {"USD": f"{usd:.10f}"}}
        for i, (unit, start, usd) in enumerate(prices)
    }
    return {"product": {"attributes": attributes}, "terms": {"OnDemand": {"SKU.TERM": {"priceDimensions": dimensions}}}}


class ScriptedPricing:
    """The server; `products` by service code."""

    def __init__(self, products: dict[str, list[dict[str, Any]]], spot: list[tuple[str, float]]) -> None:
        self.products, self.spot = products, spot
        self.requests: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                pricing = self.headers.get("X-Amz-Target", "").endswith("GetProducts")
                answer: Callable[[str], bytes] = outer._products if pricing else outer._spot
                reply = answer(body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-amz-json-1.1" if pricing else "text/xml")
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> ScriptedPricing:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _products(self, body: str) -> bytes:
        request = json.loads(body)
        filters = {one["Field"]: one["Value"] for one in request["Filters"]}
        self.requests.append((request["ServiceCode"], filters))
        found = [
            one
            for one in self.products.get(request["ServiceCode"], [])
            if filters.items() <= one["product"]["attributes"].items()
        ]
        start = int(request.get("NextToken", 0))
        reply: dict[str, Any] = {"PriceList": [json.dumps(one) for one in found[start : start + PAGE]]}
        if start + PAGE < len(found):
            reply["NextToken"] = str(start + PAGE)
        return json.dumps(reply).encode()

    def _spot(self, body: str) -> bytes:
        form = parse_qs(body)
        wanted = {value[0] for name, value in form.items() if name.startswith("InstanceType.")}
        items = "".join(
            f"<item><instanceType>{name}</instanceType><spotPrice>{usd}</spotPrice></item>"
            for name, usd in self.spot
            if name in wanted
        )
        return f"<R><spotPriceHistorySet>{items}</spotPriceHistorySet></R>".encode()
