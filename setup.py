"""Only what pyproject.toml can't say: the scorer's C form, left out without complaint where nothing compiles it."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "firstspin.models._bitrows",
            ["src/firstspin/models/_bitrows.c"],
            # no fused or reordered arithmetic: the scores are LightGBM's to the last bit
            extra_compile_args=["-O3", "-ffp-contract=off"],
            optional=True,
        )
    ]
)
