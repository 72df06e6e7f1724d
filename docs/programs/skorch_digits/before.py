"""Handwritten digits by a net of skorch."""

import torch
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn import functional as F

pixels, labels = load_digits(return_X_y=True)
X, y = (pixels / 16).astype("float32"), labels.astype("int64")
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=42)


class ClassifierModule(nn.Module):
    def __init__(self, input_dim=64, hidden_dim=98, output_dim=10, dropout=0.5):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(input_dim, hidden_dim)
        self.output = nn.Linear(hidden_dim, output_dim)

    def forward(self, X, **kwargs):
        X = self.dropout(F.relu(self.hidden(X)))
        return F.softmax(self.output(X), dim=-1)


torch.manual_seed(0)
net = NeuralNetClassifier(ClassifierModule, max_epochs=20, lr=0.1, batch_size=16, verbose=0)
net.fit(X_train, y_train)
score = accuracy_score(y_test, net.predict(X_test))
print(f"accuracy {score:.3f}")
