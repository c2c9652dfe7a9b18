"""A tool server of another implementation (the Python MCP SDK, 2.3.0, with Pillow) for the tests of our client.

    python server.py            # standard input and output
    python server.py --http N   # streamable HTTP on 127.0.0.1:N, path /mcp
"""
import argparse
import asyncio
import base64
import io
from typing import Any

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from PIL import Image as Pixels

server = MCPServer("peer")


def load(image: str) -> Pixels.Image:
    return Pixels.open(io.BytesIO(base64.b64decode(image, validate=True))).convert("RGB")


def png(pixels: Pixels.Image) -> Image:
    out = io.BytesIO()
    pixels.save(out, format="PNG")
    return Image(data=out.getvalue(), format="png")


@server.tool()
def mirror(image_base64: str) -> list[str | Image]:
    """Turn a picture round, left to right."""
    pixels = load(image_base64).transpose(Pixels.Transpose.FLIP_LEFT_RIGHT)
    return [f"mirrored {pixels.width} x {pixels.height}", png(pixels)]


@server.tool()
def find(image: str, name: str, at_least: float = 0.5) -> dict[str, Any]:
    """Find objects by name, as an open-vocabulary detector would."""
    pixels = load(image)
    if name == "unicorn":
        raise ToolError("no unicorn in this picture")
    return {"name": name, "bbox": [0, 0, pixels.width, pixels.height], "at_least": at_least}


@server.tool()
async def sleep(seconds: float) -> str:
    """Take some time."""
    await asyncio.sleep(seconds)
    return "awake"


@server.tool()
def flood(mebibytes: int) -> str:
    """Answer with a very long text."""
    return "x" * (mebibytes << 20)


@server.tool()
def die() -> str:
    """End the process in the middle of a call."""
    import os

    os._exit(3)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--http", type=int)
    port = arguments.parse_args().http
    if port is None:
        server.run()
    else:
        server.run("streamable-http", port=port)
