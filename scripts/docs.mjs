// npm run docs: the documentation as static pages in build/docs: README.md and docs/*.md, the API reference out of the doc
// comments, and the list of clauses that the conformance suite checks. TypeDoc renders them all, so that one navigation and
// one search cover everything; nothing on the pages comes from the network. Beside them lies conformance.html, what each backend passes.
//
//   npm run docs -- [--force]

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { buildAll } from './build.mjs';
import { clausesPage } from './docs/clauses.mjs';
import { Failure, runMain, say } from './lib/log.mjs';
import { buildFolder, distFolder, root } from './lib/paths.mjs';
import { filesBelow, fingerprint, isFresh, writeStamp } from './lib/stamp.mjs';

const output = join(buildFolder, 'docs');
/** Pages that are made, in the form that TypeDoc reads. */
const generated = join(buildFolder, 'docs-source');
/** What the page of the conformance matrix is made of. */
const reports = join(root, 'docs/reports');

/** The first pages of the navigation, in this order; the rest of docs/ follows by name, then what is about the project. */
const firstPages = ['guide.md', 'examples.md', 'threads.md', 'net.md'];
const lastPages = ['CONTRIBUTING.md', 'CHANGELOG.md'].map((name) => join(root, name));

function guidePages() {
  const names = readdirSync(join(root, 'docs')).filter((name) => name.endsWith('.md'));
  const place = (name) => (firstPages.includes(name) ? firstPages.indexOf(name) : firstPages.length);
  names.sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1));
  return [...names.map((name) => join(root, 'docs', name)), ...lastPages.filter(existsSync)];
}

/** Makes the pages if one of their sources has changed. */
export async function buildDocs({ force = false } = {}) {
  const documents = guidePages();
  const inputs = filesBelow([
    ...['src', 'scripts/docs', 'scripts/docs.mjs', 'README.md', 'package.json', 'tsconfig.build.json'].map((path) =>
      join(root, path),
    ),
    ...documents,
  ]);
  if (existsSync(reports)) inputs.push(...filesBelow([reports]));
  const print = fingerprint(inputs);
  const index = join(output, 'index.html');
  if (!force && isFresh('docs', print) && existsSync(index)) return false;

  const { families } = await import(pathToFileURL(join(distFolder, 'conformance/clauses.js')).href);
  rmSync(generated, { recursive: true, force: true });
  mkdirSync(generated, { recursive: true });
  const clauses = join(generated, 'clauses.md');
  writeFileSync(clauses, clausesPage(families));
  say('making the documentation');

  const { Application, LogLevel } = await import('typedoc');
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  // Made beside its place and renamed: a server that serves the folder sees the old pages or the new, never half of them.
  const fresh = `${output}.new`;
  rmSync(fresh, { recursive: true, force: true });
  const app = await Application.bootstrapWithPlugins({
    name: `completion-port ${version}`,
    entryPoints: ['index', 'promises', 'net', 'conformance/index'].map((name) => join(root, 'src', `${name}.ts`)),
    tsconfig: join(root, 'tsconfig.build.json'),
    skipErrorChecking: true, // the build has looked
    readme: existsSync(join(root, 'README.md')) ? join(root, 'README.md') : 'none',
    projectDocuments: [...documents, clauses],
    out: fresh,
    customCss: join(root, 'scripts/docs/style.css'),
    disableSources: true, // no link into a repository whose address isn't known
    excludeInternal: true,
    excludePrivate: true,
    excludeExternals: true,
    hideGenerator: true,
    githubPages: false,
    includeVersion: false,
    searchInComments: true,
    searchInDocuments: true,
    sort: ['documents-first', 'kind', 'source-order'],
    navigation: { includeCategories: false, includeGroups: false, includeFolders: false },
    visibilityFilters: { protected: false, inherited: true },
    validation: { notExported: false, invalidLink: true, rewrittenLink: true, notDocumented: false, unusedMergeModuleWith: true },
    logLevel: 'Warn',
    externalSymbolLinkMappings: { '@types/node': { '*': 'https://nodejs.org/api/' } },
    router: 'structure',
  });
  const project = await app.convert();
  if (!project) throw new Failure('the sources could not be read; the reasons stand above');
  nameAndOrder(project);
  app.validate(project);
  await app.generateDocs(project, fresh);
  if (existsSync(reports)) {
    const suite = await import(pathToFileURL(join(distFolder, 'conformance/index.js')).href);
    const titles = new Map(suite.cases.map(({ id, title }) => [id, title]));
    writeFileSync(join(fresh, 'conformance.html'), suite.htmlPage(suite.makeMatrix(suite.readReports([reports])), titles));
  }
  if (app.logger.hasErrors()) throw new Failure('the documentation has errors; they stand above');
  app.logger.level = LogLevel.Error;
  rmSync(output, { recursive: true, force: true });
  renameSync(fresh, output);
  rmSync(generated, { recursive: true, force: true });
  writeStamp('docs', print, [index]);
  return true;
}

/** Modules by the name that they are imported by, in the order of the navigation. */
const moduleNames = new Map([
  ['index', 'completion-port'],
  ['promises', 'completion-port/promises'],
  ['net', 'completion-port/net'],
  ['conformance', 'completion-port/conformance'],
]);

/** TypeDoc names a page after its file and sorts modules by theirs; ours go by their titles and by importance. */
function nameAndOrder(project) {
  const names = [...moduleNames.values()];
  for (const module of project.children ?? []) module.name = moduleNames.get(module.name) ?? module.name;
  const byImportance = (a, b) => names.indexOf(a.name) - names.indexOf(b.name);
  project.children?.sort(byImportance);
  // Documents stay in front: they are in none of the names.
  project.childrenIncludingDocuments?.sort(byImportance);
  for (const group of project.groups ?? []) {
    if (group.title === 'Modules') group.children.sort(byImportance);
  }
  for (const document of project.documents ?? []) {
    // A page without a title of its own goes by its file's name: docs/CONFORMANCE-SUITE is "Conformance suite".
    const words = basename(document.name).replace(/[-_]/g, ' ');
    if (/^[A-Z ]+$|\//.test(document.name.replace('-', ' ')))
      document.name = words[0].toUpperCase() + words.slice(1).toLowerCase();
    if (document.name === 'Net') document.name = 'Servers and sockets';
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await runMain(async () => {
    let values;
    try {
      ({ values } = parseArgs({ options: { force: { type: 'boolean', default: false } } }));
    } catch (error) {
      throw new Failure(`${basename(import.meta.url)}: ${error.message}; the only option is --force`, 2);
    }
    await buildAll({ native: false });
    await buildDocs(values);
    say(`documentation: ${join(output, 'index.html')}`);
  });
}
