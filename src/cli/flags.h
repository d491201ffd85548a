// The command line of one verb: our own words over CLI11, which is compiled in flags.cc only.
//
//   Flags flags("run", "Chat with a model in the terminal.", "bakestone run model.gguf \"Hello\"");
//   flags.Positional("MODEL", &model, "A GGUF file");
//   flags.Add("--max-tokens", &max_tokens, "Longest answer, in tokens");
//   flags.Parse(args);
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace bakestone::cli {

// Exit code 2: the command line itself is wrong.
class UsageError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// --help was asked for: what() is the help text, exit code 0.
class HelpRequested : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Flags {
 public:
  Flags(const std::string& verb, const std::string& description, const std::string& example);
  ~Flags();

  // Required, in order of declaration.
  Flags& Positional(const std::string& name, std::string* value, const std::string& help);
  // Optional, after the required ones.
  Flags& OptionalPositional(const std::string& name, std::optional<std::string>* value,
                            const std::string& help);
  Flags& PositionalList(const std::string& name, std::vector<std::string>* values,
                        const std::string& help);

  Flags& Add(const std::string& name, std::string* value, const std::string& help);
  Flags& Add(const std::string& name, std::optional<std::string>* value, const std::string& help);
  Flags& Add(const std::string& name, std::vector<std::string>* values, const std::string& help);
  Flags& Add(const std::string& name, int64_t* value, int64_t least, int64_t most,
             const std::string& help);
  Flags& Add(const std::string& name, std::optional<int64_t>* value, int64_t least, int64_t most,
             const std::string& help);
  Flags& Add(const std::string& name, double* value, double least, double most,
             const std::string& help);
  Flags& Add(const std::string& name, bool* value, const std::string& help);

  // A flag that names a TOML file with the others (config_file.h). What the command line says
  // counts.
  Flags& AddConfig(const std::string& name, const std::string& help);

  // Throws UsageError naming the argument, or HelpRequested.
  void Parse(const std::vector<std::string>& arguments);

 private:
  std::vector<std::string> FromConfig() const;

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace bakestone::cli
