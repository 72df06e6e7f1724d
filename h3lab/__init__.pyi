from . import errors as errors
from . import testing as testing
from .actor import Actor as Actor
from .actor import load as load
from .backends._torch import TorchModel as TorchModel
from .cluster.attach import attach as attach
from .cluster.lab import Lab as Lab
from .demos.digits import demo as demo
from .feeds.feed import open_feed as open_feed
from .pipeline import Pipeline as Pipeline
from .pipeline import Preprocessor as Preprocessor
from .running.listing import runs as runs
from .running.watching import watch as watch
from .sources import read as read
from .training.loop import train as train
from .training.loops import snapshot as snapshot
from .transfer import Distill as Distill

__version__: str
