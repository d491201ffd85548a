// A verb's flags from a TOML file: `port = 8080` is --port 8080, `allow-anyone = true` is
// --allow-anyone, a list is a flag given as often as it is long.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace bakestone::cli {

struct ConfigKey {
  std::string name;  // without the dashes; of what has no flag its name in small letters
  enum Kind { kSwitch, kValue, kList } kind = kValue;
  bool positional = false;  // no flag goes before its values
  bool given =
      false;  // on the command line, which counts: the file's value is checked and left out
};

// The arguments that the file stands for. Throws kInvalidArgument naming file, line and key: what
// is not TOML, a value of the wrong kind, an unknown key (and the known one that is most like it).
std::vector<std::string> ReadConfig(const std::filesystem::path& path,
                                    std::span<const ConfigKey> keys);

}  // namespace bakestone::cli
