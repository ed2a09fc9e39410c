"""`python -m infra.manifests`: checks Dockerfiles and Kubernetes manifests, without Docker and without a cluster.

    infra/docker       hadolint; compose files against the schema of the Compose Specification
    infra/kubernetes   each overlay, rendered by kubectl: objects against their schemas, unknown fields are errors
    both               images are pinned by digest, referenced files exist, variables are settings

Prints one line per check; exits with 1 when at least one check fails.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import kubernetes_validate
import yaml

from upres.core.settings import PREFIX, Settings

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / ".venv" / "manifests"
"""Where `make manifests` installs kubectl and the schemas of custom resources."""
KUBERNETES = "1.35"
"""Version of the Kubernetes schema: the oldest release that is still maintained."""
PINNED = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+[\w.-]*@sha256:[0-9a-f]{64}")
OURS = re.compile(r"upres-\w+:\d+\.\d+\.\d+(-\w+)?")
"""Images of upres itself; they are built locally, so they have no digest in a registry."""
READABLE = "--chmod=755"
"""Option of COPY: files of the checkout have modes by the umask with which it was made."""
CUSTOM = ("keda.sh/", "monitoring.coreos.com/")
VARIABLE = re.compile(rf"\b{PREFIX}[A-Z0-9_]*[A-Z0-9]\b")

Document = dict[str, Any]


class Check(NamedTuple):
    """One check, and the errors that it found."""

    what: str
    wrong: Sequence[str]


def main(root: Path = ROOT) -> int:
    """Run all checks and print the results; returns the exit code."""
    if not TOOLS.exists():
        print("There is no kubectl, and there are no schemas of custom resources; run: make manifests")
        return 1
    wrong = 0
    for check in all_checks(root):
        print(f"{'wrong' if check.wrong else 'fine '}  {check.what}")
        for sentence in check.wrong:
            print(f"         {sentence}")
        wrong += len(check.wrong)
    print(f"manifests: {wrong} wrong" if wrong else "manifests: all fine")
    return 1 if wrong else 0


def all_checks(root: Path) -> Iterator[Check]:
    """All checks."""
    for path in sorted((root / "infra/docker").glob("*.Dockerfile")):
        yield from dockerfile(root, path)
    for path in sorted((root / "infra/docker").glob("compose*.yml")):
        yield from compose(root, path)
    for path in sorted((root / "infra/kubernetes/overlays").iterdir()):
        yield from overlay(path)
    yield variables(root)


def dockerfile(root: Path, path: Path) -> Iterator[Check]:
    """Check a Dockerfile: hadolint, pinned base images, and files that COPY needs."""
    name = path.relative_to(root)
    yield Check(f"{name}: hadolint", _output(["hadolint", "--no-color", str(path)]))
    yield Check(f"{name}: images", [f"{base} is not pinned" for base in bases(path) if not PINNED.fullmatch(base)])
    copied = [source for stage in stages(path) for source, _ in stage.copied]
    missing = [f"{source} is not there, or .dockerignore hides it" for source in copied if not context(root, source)]
    yield Check(f"{name}: {len(copied)} files and folders", missing)
    ours = [value for stage in stages(path) for instruction, value in stage.instructions if instruction == "COPY"]
    unset = [value for value in ours if not value.startswith((f"{READABLE} ", "--from="))]
    yield Check(
        f"{name}: modes", [f"COPY {value}: without {READABLE} its user may be unable to read" for value in unset]
    )


def compose(root: Path, path: Path) -> Iterator[Check]:
    """Check a compose file: its schema, pinned images, and the files that it mounts or builds from."""
    name = path.relative_to(root)
    command = ["check-jsonschema", "--color", "never", "--output-format", "json"]
    report = json.loads("\n".join(_output([*command, "--builtin-schema", "vendor.compose-spec", str(path)])))
    said = [error.get("best_deep_match", error) for error in report["errors"]]
    errors = [f"{one['path']}: {one['message']}" for one in said]
    errors += [error["message"] for error in report.get("parse_errors", ())]
    yield Check(f"{name}: schema", errors)
    services: Document = {} if errors else yaml.safe_load(path.read_text())["services"]
    yield Check(f"{name}: images", unpinned(services))
    missing = [f"there is no {file}" for file in mounted(services) if not (path.parent / file).exists()]
    yield Check(f"{name}: files", missing)


def mounted(services: Document) -> Iterator[str]:
    """Files that services mount, and their Dockerfiles; relative to the compose file."""
    for service in services.values():
        yield from (volume.split(":")[0] for volume in service.get("volumes", ()) if volume.startswith("."))
        build = service.get("build", {})
        if "dockerfile" in build:
            yield f"{build['context']}/{build['dockerfile']}"


def overlay(path: Path) -> Iterator[Check]:
    """Check an overlay: each of its objects, and pinned images."""
    documents, wrong = rendered(path)
    yield Check(f"{path.name}: kustomize", wrong)
    custom = [document for document in documents if document["apiVersion"].startswith(CUSTOM)]
    for document in documents:
        if document not in custom:
            yield Check(_named(path, document), invalid(document))
    for document, wrong in zip(custom, invalid_custom(custom), strict=True):
        yield Check(_named(path, document), wrong)
    yield Check(f"{path.name}: images", unpinned(documents))


def rendered(path: Path) -> tuple[list[Document], list[str]]:
    """The objects of an overlay, and the error of kubectl if it cannot render them."""
    done = subprocess.run([TOOLS / "kubectl/kubectl", "kustomize", path], capture_output=True, text=True)
    return list(yaml.safe_load_all(done.stdout)), [done.stderr.strip()] if done.returncode else []


def invalid(document: Document) -> list[str]:
    """Errors of an object against the schema of Kubernetes; unknown fields are errors."""
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError as error:
        return [error.message]
    return []


def invalid_custom(documents: list[Document]) -> list[list[str]]:
    """Errors of custom resources against their schemas, one list for each resource."""
    script = Path(__file__).with_name("kubernetes") / "crds.mjs"
    command = ["node", "--input-type=module", "--eval", script.read_text()]
    done = subprocess.run(command, cwd=TOOLS, input=json.dumps(documents), capture_output=True, text=True)
    if done.returncode:
        return [[f"node: {done.stderr.strip()}"] for _ in documents]
    found: list[list[str]] = json.loads(done.stdout)
    return found


def unpinned(value: object) -> list[str]:
    """Errors for images without a digest: the contents of a tag may change."""
    pinned = (PINNED.fullmatch, OURS.fullmatch)
    return [f"{image} is not pinned" for image in _images(value) if not any(match(image) for match in pinned)]


def _images(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from [inner] if key == "image" and isinstance(inner, str) else _images(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _images(inner)


def variables(root: Path) -> Check:
    """Check that each UPRES_ variable in docker/ and kubernetes/ is a setting, or the password of a Redis user."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for users in ("infra/redis/users.acl", "infra/kubernetes/scaler.acl"):
        hashes = VARIABLE.findall((root / users).read_text())
        known |= {*hashes, *(name.removesuffix("_SHA256") for name in hashes)}
    files = [path for part in ("docker", "kubernetes") for path in (root / "infra" / part).rglob("*") if path.is_file()]
    named = {(path, name) for path in files for name in VARIABLE.findall(path.read_text())}
    wrong = [f"{path.relative_to(root)}: {name} is no setting" for path, name in sorted(named) if name not in known]
    return Check(f"variables in {len(files)} files", wrong)


class Stage(NamedTuple):
    """A stage of a Dockerfile."""

    name: str
    base: str
    instructions: list[tuple[str, str]]
    """(instruction, value) in order, without FROM."""

    @property
    def copied(self) -> Iterator[tuple[str, str]]:
        """Sources in the build context and targets of all COPY instructions."""
        for instruction, value in self.instructions:
            if instruction == "COPY" and "--from=" not in value:
                *sources, target = (word for word in value.split() if not word.startswith("--"))
                yield from ((source, target) for source in sources)


def stages(path: Path, **arguments: str) -> list[Stage]:
    """The stages of a Dockerfile, in order; `arguments` are build arguments, as with --build-arg."""
    found: list[Stage] = []
    for line in re.sub(r"\\\n(?:\s*#.*\n)*", "", path.read_text()).splitlines():
        instruction, _, value = line.strip().partition(" ")
        if not instruction or instruction.startswith("#"):
            continue
        if instruction == "ARG" and not found:
            name, _, default = value.partition("=")
            arguments.setdefault(name, default)
        elif instruction == "FROM":
            base, _, name = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], value).partition(" AS ")
            found.append(Stage(name, base, []))
        else:
            found[-1].instructions.append((instruction, re.sub(r"\s+", " ", value)))
    return found


def bases(path: Path) -> list[str]:
    """The external base images of a Dockerfile."""
    found = stages(path)
    return [stage.base for stage in found if stage.base not in {other.name for other in found}]


def context(root: Path, source: str) -> list[Path]:
    """The files that COPY includes for `source`, relative to the root, after applying .dockerignore."""
    lines = [line.strip() for line in (root / ".dockerignore").read_text().splitlines()]
    rules = [(_pattern(line.removeprefix("!")), line.startswith("!")) for line in lines if line and line[0] != "#"]
    found = []
    for path in (root / source, *(root / source).rglob("*")):
        relative = path.relative_to(root)
        names = [str(part) for part in (relative, *relative.parents)]
        kept = [kept for pattern, kept in rules if any(map(pattern.fullmatch, names))]
        if path.is_file() and (not kept or kept[-1]):
            found.append(relative)
    return found


def _pattern(line: str) -> re.Pattern[str]:
    """The pattern of a line in .dockerignore. The last line that matches a file or one of its folders decides."""
    escaped = re.escape(line.strip("/"))
    return re.compile(escaped.replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*"))


def _named(path: Path, document: Document) -> str:
    return f"{path.name}: {document['kind']} {document['metadata']['name']}"


def _output(command: list[str]) -> list[str]:
    """The lines that a program of this virtual environment prints, on stdout and stderr."""
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True)
    return (done.stdout + done.stderr).splitlines()


if __name__ == "__main__":
    sys.exit(main())
