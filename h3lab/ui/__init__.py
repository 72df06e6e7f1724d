"""The screen: the live panel of a run in a notebook, its static picture, several runs in one figure, a page of curves.

It knows folders of runs, Jupyter and Bokeh; of clusters, models and data it knows nothing.
"""
