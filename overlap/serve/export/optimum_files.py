"""Files of an export for optimum-habana: a folder per prompt, the records as JSON, and a page that says what to do."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec

from overlap.errors import TunedError
from overlap.files import write_atomic
from overlap.serve.export.folder import write_folder
from overlap.serve.export.optimum import SCHEMA, OptimumExport, Record
from overlap.serve.export.optimum_flags import arguments_of, words_of
from overlap.serve.export.words import loss, measured

NAME, PAGE = "export.json", "README.txt"
ARGUMENTS, GENERATION = "arguments.txt", "generation_config.json"


def write_records(export: OptimumExport, into: Path) -> None:
    """Write the folder.

    Raises:
        RunDirError: it cannot be written, or is something else already.
    """
    write_folder(into, (NAME,), lambda folder: _fill(export, folder))


def _fill(export: OptimumExport, folder: Path) -> None:
    for record in export.records:
        place = folder / record.name
        write_atomic(place / ARGUMENTS, f"{shlex.join(words_of(record.arguments))}\n".encode())
        write_atomic(place / GENERATION, _json(record.generation))
    write_atomic(folder / NAME, _json(msgspec.to_builtins(export)))
    write_atomic(folder / PAGE, "".join(f"{line}\n" for line in _page(export)).encode())


def _json(value: object) -> bytes:
    return f"{json.dumps(value, indent=1, allow_nan=False)}\n".encode()


def read_records(folder: Path) -> OptimumExport:
    """What `write_records` wrote; options and fields are those of the single files.

    Raises:
        TunedError: a file is missing or damaged.
    """
    try:
        export = msgspec.json.decode((folder / NAME).read_bytes(), type=OptimumExport)
        records = [_read(folder / one.name, one) for one in export.records]
    except OSError as error:
        raise TunedError(f"cannot read {error.filename}: {error.strerror}", "export again") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise TunedError(f"{folder} is damaged: {error}", "export again") from error
    if export.schema != SCHEMA:
        raise TunedError(f"{folder / NAME} has schema {export.schema!r}, this version reads {SCHEMA}", "export again")
    return msgspec.structs.replace(export, records=records)


def _read(place: Path, record: Record) -> Record:
    words = shlex.split((place / ARGUMENTS).read_text(encoding="utf-8"))
    generation = json.loads((place / GENERATION).read_bytes())
    return msgspec.structs.replace(record, arguments=arguments_of(words), generation=generation)


def _page(export: OptimumExport) -> Iterator[str]:
    cards = export.tensor_parallel
    yield f"{export.model.name} on optimum-habana, out of {export.source.file}, sha256 {export.source.sha256}"
    yield f"by overlap {export.source.overlap} on {export.source.date}; options as in {export.rules}"
    yield measured(export.device)
    for warning in export.warnings:
        yield f"WARNING: {warning}"
    yield ""
    yield "In examples/text-generation of optimum-habana, for a prompt of one of the folders:"
    spawn = f"python ../gaudi_spawn.py --world_size {cards}" if cards > 1 else "python"
    lazy = "1" if export.mode == "lazy" else "0"
    yield f"  PT_HPU_LAZY_MODE={lazy} xargs -a <folder>/{ARGUMENTS} {spawn} run_generation.py --max_new_tokens 128"
    yield f"{GENERATION} says the same to a program that calls generate() itself; fields that it has not are its own."
    yield "Where the model is called MODEL, put its name or folder in its place."
    yield ""
    for record in export.records:
        yield f"{record.bucket}: kept {record.kept_us:.6g} us, {record.kept}"
        yield f"  runs {record.option.what}, {loss(record.option.loss)}"
        if record.decode is not None and record.decode_option is not None:
            yield f"  then {record.decode}: {record.decode_option.what}, {loss(record.decode_option.loss)}"
        yield from (f"  - {reason}" for reason in record.reasons)
    yield from (f"left out, {one}" for one in export.left_out)
