// Prints the lines of goldens.txt, computed by the reference table: run it when the contract
// changes (docs/numerics.md), and never otherwise.
#include <cstdio>

#include "engine/test_transcripts.h"

int main() {
  for (const auto& golden :
       bakestone::testing::ComputeTranscripts(bakestone::ChooseKernels("reference"))) {
    std::printf("%s %s\n", golden.name.c_str(), golden.hash.c_str());
  }
}
