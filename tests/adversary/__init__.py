"""A harness of an adversary: a home with canaries, a project in it, and every path of its folders
replaced in turn.
"""
