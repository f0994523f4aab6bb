"""What machines ask: gradio_client, curl as the README tells it, and the MCP tools."""

import asyncio
import base64
import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ANSWER

ROOT = Path(__file__).parents[1]


def test_curl_as_the_readme_says(starter_url):
    """The README's commands themselves, on the test's address."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```bash\n(.*?curl.*?)```", readme, re.DOTALL)
    answers = subprocess.check_output(
        ["bash", "-euc", script.replace("http://127.0.0.1:7860", starter_url.rstrip("/"))], cwd=ROOT, text=True
    )
    data = [json.loads(line.removeprefix("data: ")) for line in answers.splitlines() if line.startswith("data: ")]
    assert data[-1][0]["label"] == "YES" and "event: complete" in answers


def test_tools_of_the_mcp_server(starter_url, flower):
    mcp = pytest.importorskip("mcp", reason='pip install "gradio[mcp]"')
    from mcp.client.streamable_http import streamablehttp_client

    picture = "data:image/jpeg;base64," + base64.b64encode(flower.with_name("candle.jpg").read_bytes()).decode()

    async def talk() -> tuple:
        async with (
            streamablehttp_client(f"{starter_url}gradio_api/mcp/") as (read, write, _),
            mcp.ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = (await session.list_tools()).tools
            one = await session.call_tool("predict", {"image": picture, "passage": "She blew out the candle."})
            many = await session.call_tool(
                "rank_passages", {"image": picture, "passages": ["The herring stank.", "She blew out the candle."]}
            )
            bad = await session.call_tool("predict", {"image": picture, "passage": ""})
            return tools, one, many, bad

    with ThreadPoolExecutor(1) as elsewhere:  # the browser tests leave a loop running in this thread
        tools, one, many, bad = elsewhere.submit(asyncio.run, talk()).result()
    assert {t.name: set(t.inputSchema["properties"]) for t in tools} == {
        "predict": {"image", "passage"},
        "explain": {"image", "passage"},
        "rank_passages": {"image", "passages"},
    }
    assert all(t.description and t.inputSchema["properties"]["image"]["description"] for t in tools)
    assert "'label': 'YES'" in one.content[0].text and not one.isError
    assert re.findall(r"'index': (\d)", many.content[0].text) == ["1", "0"]
    assert bad.isError and "The passage is empty" in bad.content[0].text


def test_endpoints(starter_url, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from gradio_client import Client, handle_file

    picture = tmp_path / "p.png"
    Image.new("RGB", (60, 40), "yellow").save(picture)
    client = Client(starter_url, verbose=False, analytics_enabled=False, download_files=str(tmp_path))
    answer = client.predict(image=handle_file(str(picture)), passage="a lemon", api_name="/predict")
    assert set(answer) == ANSWER
    answer, overlays = client.predict(image=handle_file(str(picture)), passage="a lemon", api_name="/explain")
    assert answer["words"] == ["a", "lemon"] and answer["gate_weights"] is None
    assert {"rollout:vit", "gradcam:cnn"} <= {o["caption"] for o in overlays}
    assert Image.open(overlays[0]["image"]).size == (60, 40)
    assert json.dumps(answer)
