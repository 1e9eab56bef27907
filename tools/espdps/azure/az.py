"""The commands of az (with its extension azure-iot) that do what `esp-dps enroll` does, for people to run.
No secret is in them: a key is read by their shell, from the file that has it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from espdps.azure.enrollment import Enrollment

_REPROVISION = {"migrate": "reprovisionandmigratedata", "reset": "reprovisionandresetdata", "never": "never"}
_WIDTH = 76


class Shell(str):
    """A word that the shell is to expand."""


class Az:
    """For one DPS instance by its `name`, else by the shell's variable DPS. `login`: by Microsoft Entra ID."""

    def __init__(self, name: str | None, login: bool = False) -> None:
        self._login = ["--auth-type", "login"] if login else []
        self._where = ["--dps-name", name or Shell('"$DPS"'), "--resource-group", Shell('"$RESOURCE_GROUP"')]

    def create(self, enrollment: Enrollment) -> str:
        words = ["--enrollment-id", enrollment.id]
        if not enrollment.group:
            words += ["--attestation-type", enrollment.attestation]
        for name, key in zip(("--primary-key", "--secondary-key"), enrollment.keys, strict=False):
            words += [name, Shell(f'"{key.shell}"')]
        copies: list[str] = []
        for name, one in zip(
            ("--certificate-path", "--secondary-certificate-path"), enrollment.certificates, strict=False
        ):
            words += [name, _certificate(one.file, copies)]
        for name, authority in zip(
            ("--root-ca-name", "--secondary-root-ca-name"), enrollment.authorities, strict=False
        ):
            words += [name, authority]
        if enrollment.device_id is not None:
            words += ["--device-id", enrollment.device_id]
        if enrollment.policy is not None:
            words += _policy(enrollment.policy)
        words += ["--reprovision-policy", _REPROVISION[enrollment.reprovision]]
        words += ["--allocation-policy", enrollment.allocation]
        if enrollment.hubs:
            words += ["--iot-hubs", *enrollment.hubs]
        if enrollment.webhook is not None:
            url, version = enrollment.webhook
            words += ["--webhook-url", Shell(f'"{url.shell}"'), "--api-version", version]
        if enrollment.tags is not None:
            words += ["--initial-twin-tags", json.dumps(enrollment.tags)]
        if enrollment.desired is not None:
            words += ["--initial-twin-properties", json.dumps(enrollment.desired)]
        if enrollment.edge:
            words += ["--edge-enabled", "true"]
        if not enrollment.enabled:
            words += ["--provisioning-status", "disabled"]
        return "\n".join([*copies, self._line(f"{_of(enrollment.group)} create", words)])

    def enrollment(self, verb: str, id: str, group: bool, *words: str) -> str:
        """`verb`: show, delete, or update with more words."""
        return self._line(f"{_of(group)} {verb}", ["--enrollment-id", id, *words])

    def all(self, group: bool) -> str:
        return self._line(f"{_of(group)} list", [])

    def registrations(self, group: str) -> str:
        return self._line("enrollment-group registration list", ["--enrollment-id", group])

    def registration(self, verb: str, id: str) -> str:
        """Of a group's device; one of an individual enrollment is asked for by `enrollment registration`."""
        return self._line(f"enrollment-group registration {verb}", ["--registration-id", id])

    def authority(self, verb: str, name: str | None = None, *words: str) -> str:
        named = [] if name is None else ["--certificate-name", name]
        return self._line(f"certificate {verb}", [*named, *words])

    def upload(self, name: str, path: Path) -> str:
        copies: list[str] = []
        words = ["--path", _certificate(path, copies)]
        return "\n".join([*copies, self.authority("create", name, *words)])

    def etag(self, name: str) -> Shell:
        """What a change of a certificate has to name."""
        show = self._words("certificate show", ["--certificate-name", name, "--query", "etag", "--output", "tsv"])
        return Shell(f'"$({" ".join(show)})"')

    def code(self, name: str) -> str:
        """Puts a new verification code into the shell's variable CODE."""
        words = ["--certificate-name", name, "--etag", self.etag(name)]
        words += ["--query", "properties.verificationCode", "--output", "tsv"]
        return f"CODE=$({self._line('certificate generate-verification-code', words)})"

    def _words(self, command: str, words: Sequence[str]) -> list[str]:
        # Certificates are the resource manager's, which always asks Microsoft Entra ID.
        login = [] if command.startswith("certificate") else self._login
        return [f"az iot dps {command}", *map(_word, self._where), *login, *map(_word, words)]

    def _line(self, command: str, words: Sequence[str]) -> str:
        """Folded at options, as a person would write it."""
        lines: list[str] = []
        for word in self._words(command, words):
            option = word.startswith("--")
            if not lines or (option and len(lines[-1]) + len(word) > _WIDTH - 24):
                lines.append(word)
            else:
                lines[-1] += f" {word}"
        return " \\\n    ".join(lines)


def quoted(path: Path | str) -> str:
    return shlex.quote(str(path))


def content_of(path: Path) -> str:
    """How a shell gets at what is in a file, within double quotes."""
    return f"$(cat {quoted(path)})"


def _certificate(path: Path, copies: list[str]) -> str:
    """The name by which az takes a certificate: it refuses all but .pem and .cer, so others get a copy."""
    if path.suffix in (".pem", ".cer"):
        return str(path)
    copies.append(f"cp {quoted(path)} {quoted(f'{path}.pem')}")
    return f"{path}.pem"


def _policy(policy: str) -> list[str]:
    """A policy in full needs azure-iot 1.0.0 or its previews, a name alone a release before."""
    names = policy.split("/")
    options = ("--adr-namespace", "--adr-ca-name", "--adr-cert-policy-name")
    pairs = zip(options if len(names) == 3 else ("--credential-policy-name",), names, strict=True)
    return [word for pair in pairs for word in pair]


def _of(group: bool) -> str:
    return "enrollment-group" if group else "enrollment"


def _word(word: str) -> str:
    return word if isinstance(word, Shell) or word.startswith("--") else shlex.quote(word)
