"""Conformance suites for whoever writes a model, source, store, executor or worker: call them in your own tests."""

from h3lab.testing.executors import EXECUTOR_CHECKS as EXECUTOR_CHECKS
from h3lab.testing.executors import check_executor as check_executor
from h3lab.testing.models import MODEL_CHECKS as MODEL_CHECKS
from h3lab.testing.models import check_model as check_model
from h3lab.testing.sources import SOURCE_CHECKS as SOURCE_CHECKS
from h3lab.testing.sources import check_source as check_source
from h3lab.testing.stores import STORE_CHECKS as STORE_CHECKS
from h3lab.testing.stores import check_store as check_store
from h3lab.testing.subject import Subject as Subject
from h3lab.testing.subject import easy_feed as easy_feed
from h3lab.testing.workers import WORKER_CHECKS as WORKER_CHECKS
from h3lab.testing.workers import check_worker as check_worker
