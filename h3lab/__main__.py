"""``python -m h3lab`` is the command ``h3lab``."""

from h3lab.cli import main

raise SystemExit(main())
