"""Captions per second of `fashionrec caption` against a local server of a stated latency, beside
what its connections allow.

python -m benchmarks captions [--garments 1920] [--connections 64] [--latency 0.8] [--out DIR]

The server is a process of its own that speaks the API's wire format and answers each request after
the latency, however many there are. Ideal is garments x latency / connections. The catalogue is
built of drawn photos of 600 x 800 with the tests' tiny models; each garment is cut from its photo,
encoded and sent as in any run. Told are the asking alone, from the first request to the last, as
the server sees it, and the whole process with its plan and its new generation.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

TINY = Path(__file__).parent.parent / "tests" / "data" / "tiny"


def draw(folder: Path, count: int) -> None:
    """Photos in which the tiny detector sees one top each, no two alike."""
    rng = random.Random(0)
    folder.mkdir(parents=True)
    for n in range(count):
        image = Image.new("RGB", (600, 800), "white")
        pen = ImageDraw.Draw(image)
        pen.rectangle((0, 0, 299, 800), fill="red")
        for _ in range(40):
            x, y = rng.randrange(300, 600), rng.randrange(800)
            pen.line((x, y, x + 40, y + 8), fill=tuple(rng.randrange(200, 256) for _ in range(3)), width=3)
        image.save(folder / f"{n:06}.jpg", quality=88)


def answer(request: dict[str, Any]) -> bytes:
    """A chat completion that fits the schema which a request asks for, checked by the openai
    package's own model of it.
    """
    from openai.types.chat import ChatCompletion

    schema = request["response_format"]["json_schema"]["schema"]["properties"]
    said = {key: spec["enum"][0] if "enum" in spec else 0.9 for key, spec in schema.items()}
    said |= {"caption_en": "A black striped garment", "caption_ko": "블랙 스트라이프 의류"}
    message = {"role": "assistant", "content": json.dumps(said, ensure_ascii=False), "refusal": None}
    usage = {"prompt_tokens": 1240, "completion_tokens": 160, "total_tokens": 1400}
    whole = {"id": "chatcmpl-local", "object": "chat.completion", "created": 1, "model": "gpt-4o", "usage": usage}
    choice = {"index": 0, "finish_reason": "stop", "logprobs": None, "message": message}
    return ChatCompletion.model_validate({**whole, "choices": [choice]}).model_dump_json().encode()


async def serve(latency: float) -> None:
    """Answer until standard input ends; then print how many came, and the seconds from the first
    request to the last answer.
    """
    answers: dict[str, bytes] = {}
    came, first, last = 0, 0.0, 0.0

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came, first, last
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-length")
                    ),
                    0,
                )
                data = await reader.readexactly(length)
                if head.startswith(b"GET"):
                    body = json.dumps({"id": "gpt-4o", "object": "model", "created": 1, "owned_by": "local"}).encode()
                else:
                    came += 1
                    first = first or time.perf_counter()
                    at = data.rfind(b'"category"')
                    kind = data[at : at + 80].decode("utf-8", "replace")
                    if kind not in answers:
                        answers[kind] = answer(json.loads(data))
                    body = answers[kind]
                    await asyncio.sleep(latency)
                    last = time.perf_counter()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                    + body
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0, limit=1 << 22)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()
    print(json.dumps({"requests": came, "seconds": last - first}), flush=True)


def measure(garments: int, connections: int, latency: float, out: Path) -> dict[str, Any]:
    shutil.rmtree(out, ignore_errors=True)
    draw(out / "photos", garments)
    environment = {**os.environ, "OPENAI_API_KEY": "none", "NO_PROXY": "127.0.0.1"}
    fashionrec = [sys.executable, "-m", "fashionrec"]
    models = ["--detector", TINY / "detector", "--embedder", TINY / "embedder"]
    made = [out / "photos", "--index", out / "catalogue", *models, "--quiet"]
    subprocess.run([*fashionrec, "build-index", *map(str, made)], check=True, stdout=subprocess.DEVNULL)
    command = [sys.executable, "-m", "benchmarks.captions", "--serve", "--latency", str(latency)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        settings = {
            "captioner.base_url": url,
            "captioner.concurrency": connections,
            "captioner.cache": out / "paid.sqlite",
        }
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        start = time.perf_counter()
        done = subprocess.run(
            [
                *fashionrec,
                "caption",
                "--index",
                str(out / "catalogue"),
                "--captioner",
                "openai",
                "--json",
                "-q",
                *words,
            ],
            check=True,
            stdout=subprocess.PIPE,
            env=environment,
        )
        whole = time.perf_counter() - start
        told = json.loads(server.communicate("")[0])
    document = json.loads(done.stdout)
    assert document["made"] == garments == told["requests"], document
    ideal = garments * latency / connections
    return {"ideal": ideal, "asking": told["seconds"], "whole": whole, "report": document}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--garments", type=int, default=1920)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.8)
    parser.add_argument("--out", type=Path, default=Path("runs/captions"))
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args([word for word in sys.argv[1:] if word != "captions"])
    if options.serve:
        asyncio.run(serve(options.latency))
        return
    found = measure(options.garments, options.connections, options.latency, options.out)
    print(f"{options.garments} garments, {options.connections} connections, {options.latency * 1000:.0f} ms each")
    for name in ("ideal", "asking", "whole"):
        share = found["ideal"] / found[name]
        print(
            f"  {name:7} {found[name]:6.1f} s  {options.garments / found[name]:6.1f} garments/s  {share:6.1%} of the ideal"
        )


if __name__ == "__main__":
    main()
