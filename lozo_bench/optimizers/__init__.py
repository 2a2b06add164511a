"""The optimizers: one file for each method, with the outline of the paper's algorithm box.

The constructor of every optimizer takes the engine, which holds the weights X, and a source of
random draws. Training calls nothing but ``step(score) -> Report``, so the loop does not need to
know which method it runs. ``lr`` is public: if there is a schedule, the loop sets it before each
step.

The numbers of equations are those of each file's docstring, not those of the papers.
"""
