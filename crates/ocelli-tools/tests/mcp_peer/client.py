"""A client of another implementation (the Python MCP SDK, 2.3.0, with Pillow) for the tests of our server.

    python client.py http URL PICTURE
    python client.py stdio PICTURE PROGRAM ARGUMENT ..

The server offers PICTURE as img_0. Every check is an assertion; the last line says `good`.
"""
import asyncio
import base64
import io
import sys

from mcp import Client, StdioServerParameters
from PIL import Image


def pixels(result) -> Image.Image:
    image = next(block for block in result.content if block.type == "image")
    assert image.mime_type == "image/png"
    return Image.open(io.BytesIO(base64.b64decode(image.data))).convert("RGB")


async def check(client: Client, path: str) -> None:
    png = open(path, "rb").read()
    mine = Image.open(io.BytesIO(png)).convert("RGB")
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert {"crop", "ocr", "read_axis", "upload_image"} <= set(tools), sorted(tools)
    assert tools["crop"].input_schema["required"] == ["image", "bbox"], tools["crop"].input_schema

    box = [3, 4, 40, 30]
    stored = await client.call_tool("upload_image", {"data": base64.b64encode(png).decode()})
    digest = stored.structured_content["hash"]
    data_url = "data:image/png;base64," + base64.b64encode(png).decode()
    for name in (digest, data_url, "img_0"):
        result = await client.call_tool("crop", {"image": name, "bbox": box})
        assert not result.is_error, result.content
        assert pixels(result).tobytes() == mine.crop(box).tobytes(), name[:40]

    # The picture that a tool made is named by its hash.
    made = result.structured_content["image"]["hash"]
    line = await client.call_tool("draw_horizontal_line_by_y", {"image": made, "y": 10})
    assert pixels(line).size == (37, 26)

    # What is wrong with a call is text that a model can read.
    for image, word in (("/etc/passwd", "not opened"), ("img_1", "img_0"), ("0" * 64, "upload it again")):
        wrong = await client.call_tool("crop", {"image": image, "bbox": box})
        assert wrong.is_error and word in wrong.content[0].text, wrong.content
    wrong = await client.call_tool("crop", {"image": digest, "bbox": [9, 9, 1, 1]})
    assert wrong.is_error and "left < right" in wrong.content[0].text, wrong.content
    wrong = await client.call_tool("no_such_tool", {})
    assert wrong.is_error and "the tools are" in wrong.content[0].text, wrong.content

    offered = (await client.list_resources()).resources
    assert [r.name for r in offered] == ["img_0"] and offered[0].size == len(png), offered
    read = await client.read_resource(offered[0].uri)
    assert base64.b64decode(read.contents[0].blob) == png

    # Many calls at once on one connection.
    sums = await asyncio.gather(*(client.call_tool("calculate", {"expression": f"{n}^2"}) for n in range(20)))
    assert [s.content[0].text for s in sums] == [str(n * n) for n in range(20)]


async def main() -> None:
    if sys.argv[1] == "http":
        target, path = sys.argv[2], sys.argv[3]
    else:
        path = sys.argv[2]
        target = StdioServerParameters(command=sys.argv[3], args=sys.argv[4:])
    for mode in ("auto", "legacy"):
        async with Client(target, mode=mode) as client:
            await check(client, path)
    print("good")


asyncio.run(main())
