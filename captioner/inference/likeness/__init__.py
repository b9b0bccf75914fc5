"""Which photos look alike, as the serving encoder sees them, and what that says about a caption. Django lives not here.

`embedding` needs torch; `index` and `ranking` are numpy and plain Python, for the threads that answer requests.
"""
