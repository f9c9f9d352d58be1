"""Commands that talk to a running primary through its OpenAI API, as any other program would.

What must not happen here: importing torch; printing what a model says with control characters in it.
"""
