"""Handwritten digits by a Keras model, on the lab."""

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import h3lab as h3

pixels, labels = load_digits(return_X_y=True)
images = (pixels / 16).astype("float32").reshape(-1, 8, 8, 1)
x_train, x_test, y_train, y_test = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)

model = keras.Sequential(
    [
        keras.Input(shape=(8, 8, 1)),
        layers.Conv2D(16, kernel_size=3, activation="relu"),
        layers.MaxPooling2D(pool_size=2),
        layers.Flatten(),
        layers.Dropout(0.3),
        layers.Dense(64, activation="relu"),
        layers.Dense(10),
    ]
)
actor = h3.Actor("keras", h3.TorchModel(model, lr=3e-3))
run = h3.Lab().train(actor, (x_train, y_train), batch_size=64, epochs=5, validation=(x_test, y_test)).wait()
score = actor.score(x_test, y_test)
print(f"accuracy {score:.3f}")
