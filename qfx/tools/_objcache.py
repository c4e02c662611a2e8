"""A compiler launcher that keeps the objects of Verilator's run-time library: `_objcache.py CACHE KEY g++ ... -c ...`.

Every Verilator build compiles the same few library files, which takes most of the time of a small one. Their objects
depend on the source, the headers, the flags and the compiler; KEY stands for headers and compiler (see
verilator.environment), so the object's name is the hash of KEY, the flags and the source. Everything else goes to
the compiler unchanged. The file imports nothing of qfx, because it is started once for each object.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Run the compiler in argv, or copy the object that it made before."""
    cache, key, library = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    command = sys.argv[4:]
    source = Path(command[-1])
    if "-c" not in command or "-o" not in command or not command[-1].startswith(library):
        os.execvp(command[0], command)
    target = Path(command[command.index("-o") + 1])
    flags = [word for word in command[:-1] if word != str(target)]
    name = hashlib.sha256("\0".join([key, source.name, *flags]).encode() + source.read_bytes()).hexdigest()[:32]
    kept = cache / f"{name}.o"
    if kept.is_file():
        shutil.copyfile(kept, target)
        return 0
    code = subprocess.run(command, check=False).returncode
    if code == 0:
        cache.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=cache)
        os.close(handle)
        try:
            shutil.copyfile(target, aside)
            Path(aside).replace(kept)
        except BaseException:
            Path(aside).unlink()
            raise
    return code


if __name__ == "__main__":
    sys.exit(main())
