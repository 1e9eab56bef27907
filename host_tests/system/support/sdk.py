"""Runs Microsoft's own SDKs, as they come from PyPI, against the simulator: their environment, their way to it, a dialogue.

It must never change a file of theirs or a function in them: what they are given are options that they document.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from espdps.bench.tunnel import Proxy, proxy
from espdps.paths import BUILD

__all__ = ["Proxy", "Sdk", "SdkError", "proxy"]

HERE = Path(__file__).resolve().parent
ENVIRONMENT = BUILD / "sdk"
NODE = BUILD / "sdk-node"
_WAIT = 60.0  # seconds for any one step of an SDK; on a busy machine they take their time


class SdkError(Exception):
    """What an SDK raised: ``kind`` is the class, ``status`` that of HTTP if it has one."""

    def __init__(self, kind: str, text: str, status: int | None) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind, self.status = kind, status


def _python(via: Proxy, roots: str) -> tuple[list[str | Path], dict[str, str]]:
    """Command and environment. The proxy is an option of the SDKs and of requests."""
    if not (ENVIRONMENT / ".packages").exists():
        pytest.fail(f"Microsoft's SDKs are not installed in {ENVIRONMENT}: `make {ENVIRONMENT.name}` does it")
    more = {"HTTPS_PROXY": f"http://127.0.0.1:{via.port}", "REQUESTS_CA_BUNDLE": roots}
    return [ENVIRONMENT / "bin" / "python", "-B"], more


def _node(via: Proxy, roots: str) -> tuple[list[str | Path], dict[str, str]]:
    """Command and environment. Node has no option for a proxy here: a module of ours that it loads first takes the
    ports to the simulator's, as a rule of the machine's firewall would.
    """
    node = shutil.which("node")
    if node is None or not (NODE / ".packages").exists():
        pytest.skip("Microsoft's SDKs for Node are left out: npm is missing, or `make sdk` has not been run with it")
    more = {"NODE_EXTRA_CA_CERTS": roots, "NODE_PATH": str(NODE / "node_modules"), "PORTS": json.dumps(via.ports)}
    return [node, "--require", HERE / "sdk_node_ports.js"], more


class Sdk:
    """One process of the SDKs' Python, or of Node, with a script of ours in it: a JSON line in is a step, a JSON line out is its
    result, or something that the SDK said by itself ("said").
    """

    def __init__(self, script: str, via: Proxy, roots: str) -> None:
        environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
        command, more = (_node if script.endswith(".js") else _python)(via, roots)
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self.said: queue.Queue[dict[str, Any]] = queue.Queue()
        self._process = subprocess.Popen(
            [*command, HERE / script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment | more
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def do(self, name: str, /, **arguments: Any) -> Any:
        """Raises SdkError when the SDK raised, AssertionError when it neither answers nor raises."""
        self.begin(name, **arguments)
        return self.end()

    def begin(self, name: str, /, **arguments: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": name, **arguments}) + "\n")
        self._process.stdin.flush()

    def end(self) -> Any:
        """The result of what was begun. Raises as do()."""
        answer = _next(self._answers, "answer")
        if "error" in answer:
            raise SdkError(answer["error"], answer["text"], answer.get("status"))
        return answer["result"]

    def hear(self, kind: str) -> dict[str, Any]:
        """The next thing of this kind that the SDK said; others before it are passed over."""
        deadline = time.monotonic() + _WAIT
        while time.monotonic() < deadline:
            said = _next(self.said, kind)
            if said["said"] == kind:
                return said
        raise AssertionError(f"the SDK never said {kind}")

    def close(self) -> None:
        """Without a farewell: how the SDKs end their threads is theirs."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            item = json.loads(line)
            (self.said if "said" in item else self._answers).put(item)
        self._answers.put({"error": "EOF", "text": "the SDK's process has ended"})


def _next(source: queue.Queue[dict[str, Any]], what: str) -> dict[str, Any]:
    try:
        return source.get(timeout=_WAIT)
    except queue.Empty:
        raise AssertionError(f"no {what} from the SDK in {_WAIT:.0f} s") from None
