// What the npm package pprof-format finds in a profile, as JSON: a second reader that knows nothing
// of ours.
//
//   node pprof_format.mjs DIRECTORY-OF-node_modules PROFILE
import {readFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {gunzipSync} from 'node:zlib';

const [directory, path] = process.argv.slice(2);
const {Profile} = createRequire(`${directory}/`)('pprof-format');
const profile = Profile.decode(gunzipSync(readFileSync(path)));
const text = (index) => profile.stringTable.strings[Number(index)];
const locations = new Map(profile.location.map((one) => [String(one.id), one]));
console.log(JSON.stringify({
  sampleTypes: profile.sampleType.map((type) => [text(type.type), text(type.unit)]),
  periodType: [text(profile.periodType.type), text(profile.periodType.unit)],
  period: Number(profile.period),
  time: String(profile.timeNanos),
  comments: profile.comment.map(text),
  mappings: profile.mapping.map((one) => [text(one.filename), text(one.buildId)]),
  samples: profile.sample.map((sample) => ({
    values: sample.value.map(Number),
    addresses: sample.locationId.map((id) => String(locations.get(String(id)).address)),
    labels: sample.label.map((label) => [text(label.key), Number(label.num)]),
  })),
}));
