"""Packs captures of real servers into one file per version, one history per line.

    python3 pack.py CAPTURES .

CAPTURES is the folder of the reference captures (a JSON file per scenario, see reference/oplog.md section 0). Kept of
each: the entries and documents as raw BSON, and the catalog as extended JSON. Dropped: all that is there for readers.
"""
import glob, json, os, sys

def collections(state):
    kept = []
    for c in state or []:
        if c.get('type') != 'collection' or 'uuid' not in c:
            continue
        kept.append({'ns': c['ns'], 'uuid': c['uuid'], 'options': c['options'], 'indexes': c.get('indexes', []),
                     'docs': c.get('docs_bson_base64', [])})
    return kept

def databases(state):
    return {c.get('ns', c.get('db', '')).split('.')[0] for c in state or []}

def histories(name, capture):
    if 'nodes' in capture:
        nodes = [(name + ':' + node, x) for node, x in sorted(capture['nodes'].items())]
    elif capture.get('oplog_bson_base64') and all('docs' in c or c.get('type') != 'collection' for c in capture['post']):
        nodes = [(name, capture)]
    else:
        nodes = []
    for name, x in nodes:
        yield {'name': name, 'version': capture['mongod'],
               'databases': sorted(databases(x['pre']) | databases(x['post'])),
               'pre': collections(x['pre']), 'oplog': x['oplog_bson_base64'], 'post': collections(x['post'])}

def main(source, target):
    total = 0
    for folder in sorted(glob.glob(source + '/*/')):
        version = os.path.basename(folder.rstrip('/'))
        lines = []
        for path in sorted(glob.glob(folder + '*.json')):
            scenario = os.path.basename(path)[:-5]
            lines += [json.dumps(h, separators=(',', ':')) for h in histories(scenario, json.load(open(path)))]
        if lines:
            open(f'{target}/{version}.jsonl', 'w').write('\n'.join(lines) + '\n')
            total += len(lines)
    for path in glob.glob(source + '/diff-*.json') + glob.glob(source + '/key*.json'):
        packed = json.dumps(json.load(open(path)), separators=(',', ':'))
        open(f'{target}/{os.path.basename(path)}', 'w').write(packed + '\n')
    print(total, 'histories')

main(sys.argv[1], sys.argv[2])
