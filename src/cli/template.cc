// bakestone template MODEL|FILE.jinja --context FILE.json: renders a chat template.
#include <cstdio>
#include <optional>
#include <string>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "cli/environment.h"
#include "cli/flags.h"
#include "cli/verbs.h"
#include "model/model_file.h"
#include "text/chat/template.h"

namespace bakestone::cli {
namespace {

std::string TemplateSource(const std::string& argument) {
  const std::filesystem::path path(argument);
  if (path.extension() == ".jinja") return ReadFile(path, 16 << 20);
  const auto found = ModelFile::Open(ResolveModel(argument)).ChatTemplate();
  if (!found) Throw(ErrorCode::kUnsupported, "{}: has no chat template", argument);
  return found->text;
}

}  // namespace

int Template(const Arguments& arguments) {
  std::string source, context_path;
  std::optional<std::string> now;
  Flags flags("template", "Render a model's chat template with the variables of a JSON file.",
              "bakestone template smollm2-135m-instruct --context chat.json");
  flags.Positional("MODEL|FILE.jinja", &source, "A model, or a template in a file of its own");
  flags.Add("--context", &context_path,
            "JSON object with messages, tools, add_generation_prompt, bos_token, ...");
  flags.Add("--now", &now, "Time that the template sees, such as 2026-03-01T09:30:00");
  flags.Parse(arguments);
  if (context_path.empty()) throw UsageError("template: expected --context FILE.json");

  const auto context =
      nlohmann::ordered_json::parse(ReadFile(context_path, 256 << 20), nullptr, false);
  if (!context.is_object()) {
    Throw(ErrorCode::kInvalidArgument, "{}: expected a JSON object, found {}", context_path,
          context.is_discarded() ? "what is not JSON" : context.type_name());
  }
  const auto parsed = chat::ChatTemplate::Parse(TemplateSource(source), source);
  chat::RenderOptions options;
  options.now = now ? chat::ParseLocalTime(*now) : chat::LocalNow();
  const chat::Rendered rendered = parsed.Render(context, options);
  std::fwrite(rendered.text.data(), 1, rendered.text.size(), stdout);
  return 0;
}

}  // namespace bakestone::cli
