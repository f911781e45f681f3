"""Only what pyproject.toml can't say: what is in C, left out without complaint where nothing compiles."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            f"firstspin.{name}",
            [f"src/firstspin/{name.replace('.', '/')}.c"],
            # no fused or reordered arithmetic: the scores are LightGBM's to the last bit
            extra_compile_args=["-O3", "-ffp-contract=off"],
            optional=True,
        )
        for name in ("data.labels._windows", "models._ranking", "models.evidence._moves", "models.trees._bitrows")
    ]
)
