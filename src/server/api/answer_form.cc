#include "server/api/answer_form.h"

#include <array>
#include <utility>

#include <fmt/format.h>

#include "base/json_depth.h"
#include "server/api/api_error.h"
#include "server/api/answer.h"

namespace bakestone::api {
namespace {

using Kind = GrammarSource::Kind;

struct GuidedField {
  const char* name;  // inside of structured_outputs; beside it with "guided_" before it
  Kind kind;
};
constexpr std::array kGuided = {
    GuidedField{"json", Kind::kJsonSchema}, GuidedField{"regex", Kind::kRegex},
    GuidedField{"choice", Kind::kChoice}, GuidedField{"grammar", Kind::kEbnf},
    GuidedField{"json_object", Kind::kJsonObject}};

std::optional<AnswerForm> ReadGuided(Fields& fields, const std::string& name, Kind kind,
                                     const std::string& field) {
  const Json* value = fields.Find(name);
  if (!value) return std::nullopt;
  if (kind == Kind::kJsonObject) {
    return fields.Bool(name).value_or(false) ? std::optional(AnswerForm{{kind, ""}, field})
                                             : std::nullopt;
  }
  if (kind == Kind::kChoice) {
    const auto texts = fields.Strings(name, 1000);
    if (!value->is_array() || texts.empty()) fields.Bad(name, "expected a list of texts");
    return AnswerForm{{kind, Dump(Json(texts))}, field};
  }
  if (kind != Kind::kJsonSchema) return AnswerForm{{kind, fields.RequiredString(name)}, field};
  if (!value->is_string()) return SchemaForm(*value, field);
  // The body was held to its depth, but not what stands in its strings.
  const auto text = value->get<std::string>();
  if (NestsDeeper(text, kMaxJsonDepth)) {
    fields.Bad(name, fmt::format("expected a JSON schema of at most {} levels, found more",
                                 kMaxJsonDepth));
  }
  const Json schema = Json::parse(text, nullptr, false);
  if (schema.is_discarded()) fields.Bad(name, "expected a JSON schema, or its text");
  return SchemaForm(schema, field);
}

}  // namespace

AnswerForm SchemaForm(const Json& schema, const std::string& field) {
  if (!schema.is_object() && !schema.is_boolean()) {
    BadField(field, field + ": expected a JSON schema, an object");
  }
  return {{Kind::kJsonSchema, Dump(schema)}, field};
}

std::optional<AnswerForm> ReadFormat(const Json& format, const std::string& field, bool wrapped) {
  if (!format.is_object()) BadField(field, field + ": expected an object with a type");
  Fields outer(format, field + ".", field);
  const std::string type = outer.RequiredString("type");
  std::optional<AnswerForm> form;
  if (type == "json_object") {
    form = AnswerForm{{Kind::kJsonObject, ""}, field};
  } else if (type == "json_schema") {
    const Json* inner = wrapped ? outer.Object("json_schema") : &format;
    if (!inner) outer.Bad("json_schema", "this field is required");
    Fields fields(*inner, wrapped ? field + ".json_schema." : field + ".", field);
    const Json* schema = fields.Find("schema");
    fields.Bool("strict");  // an answer is always held to it
    fields.Ignore({"type", "name", "description"});
    fields.Finish();
    if (schema) {
      form = SchemaForm(*schema, field);
    } else if (wrapped) {
      form = AnswerForm{{Kind::kJsonSchema, "{}"}, field};  // OpenAI's schema is optional
    } else {
      fields.Bad("schema", "this field is required");
    }
    if (!wrapped) return form;
  } else if (type != "text") {
    outer.Unsupported("type", "expected text, json_object or json_schema");
  }
  outer.Finish();
  return form;
}

std::optional<AnswerForm> ReadResponseFormat(Fields& fields) {
  std::optional<AnswerForm> form;
  const auto take = [&](std::optional<AnswerForm> next) {
    if (form && next) {
      BadField(next->field, fmt::format("{}: not together with {}", next->field, form->field));
    }
    if (next) form = std::move(next);
  };
  if (const Json* format = fields.Find("response_format")) {
    take(ReadFormat(*format, "response_format", true));
  }
  if (const Json* outputs = fields.Object("structured_outputs")) {
    Fields inner(*outputs, "structured_outputs.", "structured_outputs");
    for (const GuidedField& guided : kGuided) {
      take(ReadGuided(inner, guided.name, guided.kind, "structured_outputs"));
    }
    inner.Finish();
  }
  for (const GuidedField& guided : kGuided) {
    const std::string name = std::string("guided_") + guided.name;
    if (guided.kind != Kind::kJsonObject) take(ReadGuided(fields, name, guided.kind, name));
  }
  return form;
}

}  // namespace bakestone::api
