"""Training, from MUSTI's file to published weights. The modules of this folder are its commands, each by ``python -m
training.NAME``; what they are made of lies in the folders beside them, by purpose."""
