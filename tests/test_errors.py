"""Errors: one tree, whose messages help, and that cross processes."""

import inspect
import pickle
import re
from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from h3lab import errors
from h3lab.errors import H3labError, NonFiniteLoss, UnknownName, UsageError

BUILTINS = {
    "UsageError": ValueError,
    "UnknownName": ValueError,
    "DataError": ValueError,
    "NotFittedError": AttributeError,
    "ModelError": RuntimeError,
    "MissingExtra": ImportError,
    "TravelError": TypeError,
    "RunNotFound": LookupError,
    "StorageError": OSError,
}
ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


def made(kind):
    if kind is UnknownName:
        return UnknownName("column", "txt", ["text", "price"], "block 'words'")
    if kind is NonFiniteLoss:
        return NonFiniteLoss("the loss became nan", step=7)
    if kind is errors.UnseenValue:
        return errors.UnseenValue("column 'c' has 'z'", 3, "Write what allows it.").placed(of="part 2")
    return kind("what came, what was expected, what to do")


def test_all_are_in_one_tree():
    assert len(ALL) > 15 and all(issubclass(kind, H3labError) for kind in ALL)
    for name, base in BUILTINS.items():
        assert issubclass(getattr(errors, name), base)


@pytest.mark.parametrize("kind", ALL)
def test_they_cross_processes(kind):
    """Exceptions are rebuilt from their arguments; these have arguments of their own."""
    error = made(kind)
    error.note = "from rank 1"
    error.add_note("in slot 2")
    there = pickle.loads(pickle.dumps(error))
    assert type(there) is kind and str(there) == str(error) and vars(there) == vars(error)
    assert there.note == "from rank 1" and there.__notes__ == ["in slot 2"]


def test_a_misspelt_name_lists_the_known_and_the_closest():
    error = UnknownName("column", "pirce", ["price", "stars", 3], "block 'numbers'")
    assert str(error) == (
        "there is no column 'pirce' in block 'numbers'. Did you mean 'price'? Known: price, stars, 3."
    )
    assert (error.name, error.known) == ("pirce", ["price", "stars", "3"])
    assert isinstance(error, UsageError)


def test_a_name_that_is_like_none_suggests_none():
    assert str(UnknownName("run", "xyz", ["digits"])) == "there is no run 'xyz'. Known: digits."
    assert str(UnknownName("run", "xyz", [])) == "there is no run 'xyz'. Known: none."


def test_many_names_are_cut():
    text = str(UnknownName("column", "c300", (f"c{i}" for i in range(100))))
    assert "c19, ... (100 in all)" in text and "c20" not in text


def test_a_loss_that_is_no_number_tells_its_step():
    assert made(NonFiniteLoss).step == 7


@pytest.mark.parametrize(
    "text, shown",
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:se@cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:top/secret@host/db", "postgresql://me:***@host/db"),
        ("s3://key:Aws/Secret+x@bucket/a.csv", "s3://key:***@bucket/a.csv"),
        ("amqp://:secret@host", "amqp://:***@host"),
        ("postgresql://me:secret", "postgresql://me:***"),
        ("s3://bucket/key?token=abc&x=1", "s3://bucket/key?token=***"),
        ("GET /a.csv?op=OPEN&delegation=abc failed", "GET /a.csv?op=OPEN&delegation=*** failed"),
        ("no connection: password=geheim host=db", "no connection: password=*** host=db"),
        ("no url: a:b@c", "no url: a:b@c"),
        ("https://host/path", "https://host/path"),
        ("webhdfs://root@host:9870/a@b.csv", "webhdfs://root@host:9870/a@b.csv"),
        ("two: ftp://a:b@c/d and ftp://e:f@g", "two: ftp://a:***@c/d and ftp://e:***@g"),
        ("zip://a.zip::ftp://me:my secret@host/b", "zip://a.zip::ftp://me:***@host/b"),
        ("cannot reach ftp://me:my secret@host/b", "cannot reach ftp://me:***@host/b"),
        ("no answer of http://host:80/x, ask me@x.org", "no answer of http://host:80/x, ask me@x.org"),
        ("no bucket s3://bucket: ask me@x.org", "no bucket s3://bucket: ask me@x.org"),
        (
            "ask me@x.org about ftp://me:a@b@host/c, or you@x.org",
            "ask me@x.org about ftp://me:***@host/c, or you@x.org",
        ),
    ],
)
def test_passwords_are_not_shown(text, shown):
    assert errors.redacted(text) == shown
    assert errors.redacted(shown) == shown


def test_what_opens_a_database_again_stays():
    url = "postgresql://me:se?c/ret@h/x?sslmode=require&options=-c%20a"
    assert errors.without_passwords(url) == "postgresql://me:***@h/x?sslmode=require&options=-c%20a"
    for hidden in ("password=geheim", "sslmode=require&sslpassword=geheim&b=1", "authToken=geheim", "key=a&geheim"):
        assert "geheim" not in errors.without_passwords(f"postgresql://127.0.0.1/x?{hidden}")


SECRETS = st.text(st.sampled_from("ab1XÄ@/:?#%&=+ .-_~!$'\"()[]{}|\\"), min_size=4, max_size=12)
PLACES = ("127.0.0.1:5432/db", "host/a/b.csv", "[::1]:80/x", "bucket", "host/db?sslmode=require")


@given(SECRETS, st.sampled_from(["", "me", "me.too", "AKIA123"]), st.sampled_from(PLACES))
@settings(max_examples=500)
def test_no_password_survives_in_any_form(secret, user, place):
    for written in (secret, quote(secret), quote(secret, safe="")):
        assume(written not in f"s3://{user}:***@{place}")
        url = f"s3://{user}:{written}@{place}"
        for shown in (errors.redacted(url), errors.without_passwords(url)):
            assert shown == errors.without_passwords(f"s3://{user}:x@{place}") or "?" in place
            assert written not in shown


@given(SECRETS.filter(lambda text: not text.startswith(" ")), st.sampled_from(PLACES))
@settings(max_examples=500)
def test_no_password_survives_in_a_message(secret, place):
    assume(not re.match(r"\d{1,5}\W", secret))  # a port
    assume(not (" " in secret and "@" in secret))  # the first @ may be that of a URL, and the blank its end
    url = f"ftp://me:{secret}@{place}"
    text = f"mail me@x.org: cannot reach {url}, nor s3://bucket/a.csv; is it {url!r}?"
    assert secret not in errors.redacted(text)


@given(SECRETS, st.sampled_from(["password", "sslpassword", "token", "aws_secret", "api_key", "X-Amz-Signature"]))
@settings(max_examples=500)
def test_no_parameter_survives_in_any_form(secret, name):
    for written in (secret, quote(secret, safe="")):
        assume(written not in f"postgresql://host/db?sslmode=require&{name}=***")
        for shown in (errors.redacted, errors.without_passwords):
            assert written not in shown(f"postgresql://host/db?sslmode=require&{name}={written}")
            assert written not in shown(f"https://host/a.csv?{name}={written}&sslmode=require")


# ---- Calls that do not fit --------------------------------------------------------------------------------


@errors.guided
class Kettle:
    """Boils."""

    def __init__(self, name: str, *, degrees: float = 100.0) -> None:
        self.name, self.degrees = name, degrees

    def boil(self, seconds: float = 60.0) -> str:
        """The sound of it."""
        return "bubble" + seconds  # what somebody else got wrong

    def _inside(self, **settings):
        return settings


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: Kettle("tea", degres=90),
            UnknownName,
            "there is no argument 'degres' in Kettle(). Did you mean 'degrees'? Known: name, degrees.",
        ),
        (
            lambda: Kettle("tea").boil(timeout=3),
            UnknownName,
            "there is no argument 'timeout' in Kettle.boil(). Known: seconds.",
        ),
        (Kettle, UsageError, "Kettle() misses 'name'. Call it as Kettle(name, *, degrees=100.0)."),
        (
            lambda: Kettle("tea", 90),
            UsageError,
            "Kettle() was given more arguments by position than it takes. Call it as Kettle(name, *, degrees=100.0).",
        ),
        (
            lambda: Kettle("tea", name="coffee"),
            UsageError,
            "Kettle() got multiple values for argument 'name'. Call it as Kettle(name, *, degrees=100.0).",
        ),
    ],
)
def test_a_call_that_does_not_fit_is_answered(call, kind, message):
    with pytest.raises(kind) as raised:
        call()
    assert type(raised.value) is kind and str(raised.value) == message
    assert isinstance(raised.value.__cause__, TypeError)


def test_a_guided_thing_keeps_its_face_and_its_own_errors():
    assert inspect.signature(Kettle).parameters["degrees"].default == 100.0
    assert Kettle.boil.__doc__ == "The sound of it."
    with pytest.raises(TypeError, match="concatenate") as raised:
        Kettle("tea").boil()
    assert not isinstance(raised.value, H3labError)
    assert Kettle("tea")._inside(any=1) == {"any": 1}


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("learning_rate", ["lr", "optimizer"], "lr"),
        ("learning_rate", ["learning_rates", "optimizer"], "learning_rates"),
        ("SGD", ["adam", "sgd"], "sgd"),
        ("prise", ["Price", "price"], "Price"),
        ("max_iter", ["name", "epochs"], "epochs"),
        ("max_iter", ["name"], None),
        (3, ["name"], None),
    ],
)
def test_the_closest_name(name, known, meant):
    assert errors.closest(name, known) == meant
