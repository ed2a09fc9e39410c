// Custom resources as JSON on stdin → for each a list of what is wrong with it, as JSON on stdout. infra/manifests.py
// runs it in the folder that has the packages. The models' validators know types, enumerations and patterns, but let
// unknown fields pass; the compiler refuses those, by the types of the same models.
import { text } from "node:stream/consumers";
import ts from "typescript";

const PACKAGES = {
  "keda.sh": "@kubernetes-models/keda",
  "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
};
const FILE = `${process.cwd()}/objects.ts`;
const objects = JSON.parse(await text(process.stdin));
const model = ({ apiVersion, kind }) => `${PACKAGES[apiVersion.split("/")[0]]}/${apiVersion}/${kind}`;

async function invalid(object) {
  const { [object.kind]: Model } = await import(model(object));
  try {
    new Model(object).validate();
    return [];
  } catch (error) {
    return [error.message];
  }
}

function compiled() {
  const lines = objects.map((object, index) =>
    `const object${index}: import("${model(object)}").I${object.kind} = ${JSON.stringify(object)};`);
  const options = {
    noEmit: true, strict: true, skipLibCheck: true, types: [], target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler,
  };
  const host = ts.createCompilerHost(options);
  const { getSourceFile } = host;
  host.getSourceFile = (name, ...rest) =>
    name === FILE ? ts.createSourceFile(name, lines.join("\n"), ...rest) : getSourceFile(name, ...rest);
  return ts.getPreEmitDiagnostics(ts.createProgram([FILE], options, host));
}

const wrong = await Promise.all(objects.map(invalid));
for (const { file, start, messageText } of compiled()) {
  const line = file?.fileName === FILE ? file.getLineAndCharacterOfPosition(start).line : 0;
  wrong[line].push(ts.flattenDiagnosticMessageText(messageText, " "));
}
console.log(JSON.stringify(wrong));
