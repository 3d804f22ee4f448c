"""Recovery by distillation: a cut model is trained against the dense model that it was cut from.

Read in this order:

    distillation   a cut -> its recovered layers, in the store        the story
    recipe         all that a training run depends on
    rows           training rows apart from the held-out ones, and their batches by step
    lesson         a batch in front of teacher and student; the answers' loss is the task's own
    loss           answers, hidden states and hard labels together
    student        the model that learns: its parameters, its locked zeros, its optimizer
    thinning       what goes bit by bit while it learns, when it is not cut before
    criteria       by what that goes, one file each
    schedule       learning rate over progress, which steps and minutes both bound
    crew           the workers that train together; one alone is the usual case
    training       the loop
    blame          the rows that a loss or gradient which is not finite comes from
    checkpoint     what the loop needs to go on after it was killed
"""
