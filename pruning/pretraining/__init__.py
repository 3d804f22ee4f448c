"""Sparse pre-training: one encoder is cut and taught before any task, and serves many (Prune Once For All).

Read in this order:

    sparse_encoder   a dense encoder and plain text -> a folder whose encoder is sparse      the story
    plain_text       texts cut into pieces that fill a sequence
    lesson           one batch of them in front of the dense encoder and the sparse one
    model_folder     the folder that the library reads like the one it came from
"""
