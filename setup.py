"""Extension modules only (setup.cfg cannot declare them); everything else is in setup.cfg."""

from setuptools import setup

setup(ext_modules=[])
