#include <unistd.h>

#include "grammar/grammar.h"

int main() { return bakestone::RunGrammarHelper(STDIN_FILENO); }
