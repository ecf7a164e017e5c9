"""Extension modules only (setup.cfg cannot declare them); everything else is in setup.cfg."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        # The recorder's inner loops. Without a C compiler the build goes on, and
        # perfmeasure/recorder/plain.py does the same with numpy.
        Extension(
            "perfmeasure.recorder._native",
            ["perfmeasure/recorder/native.c"],
            include_dirs=["bpf", "perfmeasure/recorder"],
            depends=[
                "bpf/packet.h",
                "bpf/records.h",
                "perfmeasure/recorder/core.h",
                "perfmeasure/recorder/link.h",
            ],
            extra_compile_args=["-O2", "-fno-strict-aliasing"],
            py_limited_api=True,
            optional=True,
        )
    ]
)
