"""The tests of tables have one folder."""

from one_folder import emptied, tmp_path

__all__ = ["emptied", "tmp_path"]
