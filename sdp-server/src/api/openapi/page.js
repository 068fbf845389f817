"use strict";

// Everything is put in as text: nothing of the document is taken for markup.
const make = (name, text, ...children) => {
  const element = document.createElement(name);
  if (text) element.textContent = text;
  element.append(...children);
  return element;
};

const classed = (element, name) => {
  element.className = name;
  return element;
};

// A schema as people write examples: `{ name: string, … }`, to a depth that can be read.
const shape = (spec, schema, depth = 0) => {
  if (!schema) return "any";
  if (schema.$ref) {
    const name = decodeURIComponent(schema.$ref.split("/").pop());
    const target = spec.components.schemas[name];
    return depth > 3 || !target ? name : shape(spec, target, depth);
  }
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const choices = schema.oneOf || schema.anyOf;
  if (choices) return choices.map((choice) => shape(spec, choice, depth)).join(" | ");
  const pad = "  ".repeat(depth + 1);
  if (schema.properties) {
    const required = new Set(schema.required || []);
    const fields = Object.entries(schema.properties).map(([name, field]) => {
      const about = field.description ? `  // ${field.description.split("\n")[0]}` : "";
      return `${pad}${name}${required.has(name) ? "" : "?"}: ${shape(spec, field, depth + 1)}${about}`;
    });
    return `{\n${fields.join("\n")}\n${"  ".repeat(depth)}}`;
  }
  if (schema.type === "array") return `[${shape(spec, schema.items, depth + 1)}]`;
  if (schema.additionalProperties) return `{ [name]: ${shape(spec, schema.additionalProperties, depth + 1)} }`;
  return [].concat(schema.type || "any").join(" | ") + (schema.format ? ` (${schema.format})` : "");
};

const table = (rows) => make("table", "", ...rows.map((row) => make("tr", "", ...row.map((cell) => make("td", cell)))));

const operation = (spec, path, method, details) => {
  const summary = make("summary", "", classed(make("code", method.toUpperCase()), "method"), make("code", path));
  summary.append(" ", classed(make("span", details.summary), "what"));
  const body = [make("p", details.description)];
  if (details.parameters.length) {
    body.push(make("h3", "Parameters"));
    body.push(table(details.parameters.map((it) => [
      it.name + (it.required ? "" : "?"), it.in, shape(spec, it.schema), it.description || "",
    ])));
  }
  for (const [kind, media] of Object.entries(details.requestBody?.content || {})) {
    body.push(make("h3", `Body: ${kind}`), make("pre", shape(spec, media.schema)));
    if (media.example) body.push(make("pre", JSON.stringify(media.example, null, 2)));
  }
  for (const [status, response] of Object.entries(details.responses)) {
    body.push(make("h3", `${status}: ${response.description}`));
    const media = response.content?.["application/json"];
    if (media) body.push(make("pre", shape(spec, media.schema)));
  }
  const element = make("details", "", summary, ...body);
  element.dataset.text = `${method} ${path} ${details.summary}`.toLowerCase();
  return element;
};

const show = (spec) => {
  document.getElementById("about").textContent = spec.info.description;
  const main = document.getElementById("operations");
  for (const { name } of spec.tags) {
    const section = make("section", "", make("h2", name));
    for (const [path, methods] of Object.entries(spec.paths)) {
      for (const [method, details] of Object.entries(methods)) {
        if (details.tags[0] === name) section.append(operation(spec, path, method, details));
      }
    }
    main.append(section);
  }
  document.getElementById("find").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    for (const element of main.querySelectorAll("details")) element.hidden = !element.dataset.text.includes(wanted);
    for (const section of main.children) section.hidden = !section.querySelector("details:not([hidden])");
  });
};

fetch("/api/openapi.json")
  .then((answer) => answer.json())
  .then(show)
  .catch((error) => { document.getElementById("about").textContent = `The description could not be loaded: ${error}`; });
