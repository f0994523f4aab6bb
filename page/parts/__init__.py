"""The parts of the tab "One pair", one a file: each builds its components, answers for what happens in them, and says
what they show."""
