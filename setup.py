"""Only what pyproject.toml can't say: the answer's steps in C, left out without complaint where nothing compiles."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            f"firstspin.models.{name}",
            [f"src/firstspin/models/{name}.c"],
            # no fused or reordered arithmetic: the scores are LightGBM's to the last bit
            extra_compile_args=["-O3", "-ffp-contract=off"],
            optional=True,
        )
        for name in ("_bitrows", "_ranking")
    ]
)
