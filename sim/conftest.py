"""What benches share with the other tests."""

from tests.conftest import temporary_files as temporary_files
